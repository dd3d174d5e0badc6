"""What the launcher started: it finds the warm interpreter, or becomes the first of its makers.

From then on it stands for its rank: it passes signals on to it and ends as it did.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from commbench.warm.rank import run_to_end
from commbench.warm.request import STARTED, STATUS, own_request, send_request
from commbench.warm.server import leave_launcher, same_user, serve

# Imports from a slow disk take minutes.
_STARTS_WITHIN_S = 300.0
_BACKLOG = 4096
_PAUSE_S = 0.02
# Those that reach a rank under a launcher, a batch system or a terminal. The kernel lets nobody
# pass on SIGKILL, which the server sees to, or SIGSTOP.
_PASSED_ON = (
    *("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTERM", "SIGCONT"),
    *("SIGTSTP", "SIGWINCH", "SIGXCPU", "SIGURG"),
)


class NoServer(Exception):  # noqa: N818
    """No warm interpreter answers; nothing has been started."""


class NotListening(Exception):  # noqa: N818
    """There is no server now; there may be one in a moment."""


def start(
    place: str, ranks: int, *, preload: Callable[[], None], run: Callable[[], object]
) -> NoReturn:
    """Have `run` called in a fork of the warm interpreter, and end as that does.

    Args:
        place: the name of the socket where ranks that may share an interpreter meet.
        ranks: how many of them there are.
        preload: called once in the interpreter, before ranks are forked.
        run: called in the rank.

    Raises:
        NoServer: nothing has been started.
    """
    # Who has the name may not listen yet, for as long as a loaded machine does not let it.
    until = time.monotonic() + _STARTS_WITHIN_S
    attempts = 2  # a server may be at its end when we find it
    while True:
        listener = open_place(place)
        if listener and forked_server(listener):
            if serve(listener, ranks, preload) is None:
                os._exit(0)
            run_to_end(run)
        if listener:
            listener.close()
        try:
            end_as(hand_over(place))
        except NotListening:
            if time.monotonic() > until:
                raise NoServer("nobody listens under its name") from None
            time.sleep(_PAUSE_S)
        except NoServer:
            attempts -= 1
            if not attempts:
                raise


def open_place(place: str) -> socket.socket | None:
    """A socket that listens under this name; None if another process has it."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(place)
    except OSError:
        listener.close()
        return None
    listener.listen(_BACKLOG)
    return listener


def forked_server(listener: socket.socket) -> bool:
    """Fork the server off for good; True in it, which has nothing left but the listener."""
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    leave_launcher(listener.fileno())
    return True


def hand_over(place: str) -> int:
    """Have a rank forked in this process's place, and stand for it.

    Returns:
        Its status when it has ended, as `os.waitpid` has it.

    Raises:
        NoServer, NotListening: nothing has been started.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_STARTS_WITHIN_S)
        try:
            connection.connect(place)
        except ConnectionRefusedError:
            raise NotListening from None
        except OSError as error:
            raise NoServer(str(error)) from None
        try:
            if not same_user(connection):
                raise NoServer("another user has taken its name")
            send_request(connection, own_request())
            _pass_on_signals(connection)
            started = connection.recv(len(STARTED)) == STARTED
        except TimeoutError:
            raise NoServer(f"it did not answer in {_STARTS_WITHIN_S:g} s") from None
        except OSError as error:
            raise NoServer(str(error)) from None
        if not started:
            raise NoServer("it ended early")
        connection.settimeout(None)
        told = b""
        with contextlib.suppress(OSError):
            told = connection.recv(STATUS.size)
    if len(told) != STATUS.size:
        # The server was killed, and its ranks went with it.
        return int(signal.SIGKILL)
    return int(STATUS.unpack(told)[0])


def end_as(status: int) -> NoReturn:
    """End this process as another one did."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # Its own dump, if there is one, is of interest, and not this process's.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL has no other
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _pass_on_signals(connection: socket.socket) -> None:
    def pass_on(number: int, _: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            connection.send(bytes([number]))

    for name in _PASSED_ON:
        number = getattr(signal, name)
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, pass_on)
