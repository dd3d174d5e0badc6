"""The console script: starts a rank warm or cold, before anything slow is imported."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from commbench.errors import EXIT_USER
from commbench.warm import choice


def main() -> NoReturn:
    """Run the command line, in this process or in a fork of the node's warm interpreter."""
    asked = choice.wish(sys.argv[1:], os.environ)
    try:
        if asked and choice.starts_warm(asked, os.environ):
            _start_warm(asked)
    except choice.CannotStartWarm as error:
        from commbench.launcher import launched_rank

        if launched_rank() == 0:
            print(f"commbench: error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
    _run()


def _start_warm(asked: choice.Wish) -> None:
    """Returns only where there is no server to be had, for this process to be the rank.

    Raises:
        CannotStartWarm: it was asked for.
    """
    from commbench.warm.client import NoServer, start

    place = choice.meeting_place(os.environ)
    try:
        start(place, choice.local_size(os.environ), preload=_preload, run=_run)
    except NoServer as error:
        if asked.word == "on":
            raise choice.CannotStartWarm(
                f"{choice.OPTION} on: no warm interpreter: {error}; use {choice.OPTION} off"
            ) from None


def _preload() -> None:
    from commbench.warm.preload import preload

    preload()


def _run() -> NoReturn:
    from commbench.cli import main as run

    run()
    raise AssertionError("the command line ends with an exit")
