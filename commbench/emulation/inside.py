"""The first process inside the namespaces: builds the cluster, starts MPI there, waits for it.

`python -m commbench.emulation.inside LAYOUT PROGRAM...`; only `machine.run_inside` starts it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from commbench.emulation.launch import command, find_mpirun
from commbench.emulation.layout import Layout
from commbench.emulation.switches import SWITCHES, build, hosts_file
from commbench.errors import EXIT_USER, UserError

_RUN, _SHARED_MEMORY = Path("/run"), Path("/dev/shm")
# Folders that the hosts have of their own, so that nothing in them outlives the command.
HIDDEN = (_RUN, _SHARED_MEMORY)
_NAMES = Path("/etc/hosts")


def main(arguments: Sequence[str]) -> NoReturn:
    """Be the first process; ends as the program does."""
    layout, program = Layout.from_json(arguments[0]), list(arguments[1:])
    try:
        mpirun, library = find_mpirun()
        folder = _own_folders()
        (folder / "hosts").write_text(hosts_file(layout))
        if _NAMES.exists():
            _mount("--bind", str(folder / "hosts"), str(_NAMES))
        subprocess.run(["hostname", SWITCHES], check=True)
        build(layout)
    except UserError as error:
        print(f"commbench: error: {error}", file=sys.stderr)
        sys.exit(EXIT_USER)
    line, variables = command(layout, mpirun, library, folder, program)
    # What the user set wins.
    environ = {**variables, **os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(line, env=environ)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, frame: process.send_signal(got))
    status = process.wait()
    sys.exit(status if status >= 0 else 128 - status)


def _own_folders() -> Path:
    """Names of namespaces, shared memory and short-lived files that nobody else sees."""
    for path in HIDDEN:
        _mount("-t", "tmpfs", "commbench", str(path))
    (_RUN / "netns").mkdir()
    folder = _SHARED_MEMORY / "commbench"
    folder.mkdir()
    return folder


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"cannot mount {arguments[-1]} privately: {done.stderr.strip()}")


if __name__ == "__main__":
    main(sys.argv[1:])
