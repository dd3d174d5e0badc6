"""The command line: one file a command, this one puts them together and speaks of errors."""

from __future__ import annotations

import os
import sys

import click

import commbench
from commbench.cli import (
    advise,
    calibrate,
    compare,
    data,
    emulate,
    info,
    pipeline,
    recipe,
    report,
    reproduce,
    simulate,
    sweep,
    train,
    tune,
    verify,
)
from commbench.errors import EXIT_USER, UserError
from commbench.launcher import launched_rank
from commbench.memory import told_of_memory


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(commbench.__version__, prog_name="commbench")
def commands() -> None:
    """Parameter server or all-reduce? Settle it with a real model on real MPI ranks.

    \b
      mpirun -n 4 commbench train --model nin --exchange tree
      mpirun -n 4 commbench train --model nin --exchange parameter-server
      mpirun -n 4 commbench sweep --exchange all --check
      commbench compare tree.h5 parameter-server.h5
      commbench report results/*.h5 --output report.html

    Every command also runs on its own, as a job of one rank. A default can be set in the
    environment: COMMBENCH_TRAIN_BATCH=128 is --batch 128 of the command train.
    """


_RUN = (train, recipe, sweep, tune, calibrate, pipeline, emulate)
_TELL = (verify, advise, simulate, info, compare, report, reproduce, data)
for _module in (*_RUN, *_TELL):
    commands.add_command(_module.command)


def main() -> None:
    """Run the command line; under mpirun rank 0 speaks for all.

    Exit status 0 when all went well, 1 for a bug or a wrong result, 2 for bad input.
    """
    speaks = launched_rank() == 0
    if not speaks:
        # All ranks read the same command line, and one help text is enough.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    try:
        status = commands.main(standalone_mode=False, auto_envvar_prefix="COMMBENCH")
    except click.exceptions.Abort:
        status = 130
    except click.exceptions.NoArgsIsHelpError as error:
        if speaks:
            error.show()
        status = EXIT_USER
    except (click.ClickException, UserError, MemoryError, RuntimeError) as error:
        told = _told(error)
        if not told:
            raise
        if speaks:
            print(f"commbench: error: {told}", file=sys.stderr)
        status = EXIT_USER
    sys.exit(status)


def _told(error: Exception) -> str:
    """The one line for an error that is no bug; "" for one that is."""
    if isinstance(error, UserError):
        return str(error)
    if not isinstance(error, click.ClickException):
        return told_of_memory(error)
    context = error.ctx if isinstance(error, click.UsageError) else None
    more = f" ({context.command_path} --help tells more)" if context else ""
    return " ".join(error.format_message().split()) + more
