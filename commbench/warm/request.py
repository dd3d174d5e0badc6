"""What a client hands over, so that a fork of the server can take its place, and the taking.

A request is one message with descriptors, then its text. Everything a process inherits from its
launcher and that commbench or an MPI library looks at is part of it: arguments, environment,
directory, umask, cores, and descriptors under their own numbers.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

STARTED = b"+"
"""From the server: the rank is running. What follows is its status, as `os.waitpid` has it."""

STATUS = struct.Struct("i")
_LENGTH = struct.Struct("Q")
_MOST_DESCRIPTORS = 64
_PAUSE_S = 0.02
# Variables that name a descriptor: of PMI, and of hydra's own.
_DESCRIPTOR_VARIABLES = ("PMI_FD", "HYDI_CONTROL_FD")


@dataclass(frozen=True)
class Request:
    """What a rank is to be.

    Attributes:
        arguments: its command line.
        environ: its environment.
        umask: of the files it creates.
        cores: those it may use.
        numbers: of its descriptors.
    """

    arguments: list[str]
    environ: dict[str, str]
    umask: int
    cores: list[int]
    numbers: list[int]


def own_request() -> Request:
    """This process's."""
    umask = os.umask(0o077)
    os.umask(umask)
    numbers = sorted(_descriptors(sys.argv, os.environ))
    cores = sorted(os.sched_getaffinity(0))
    return Request(sys.argv, dict(os.environ), umask, cores, numbers)


def send_request(connection: socket.socket, request: Request) -> None:
    """Hand it over, with the descriptors it names and the directory this process is in."""
    text = json.dumps(asdict(request)).encode()
    here = os.open(".", os.O_PATH)
    try:
        _send_descriptors(connection, _LENGTH.pack(len(text)), [here, *request.numbers])
    finally:
        os.close(here)
    connection.sendall(text)


def _send_descriptors(connection: socket.socket, head: bytes, numbers: list[int]) -> None:
    """Send them once there is room: Linux lets a user have so many on their way, and no more."""
    until = time.monotonic() + (connection.gettimeout() or 0)
    while True:
        try:
            socket.send_fds(connection, [head], numbers)
            return
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS or time.monotonic() > until:
                raise
        time.sleep(_PAUSE_S)


def receive_request(connection: socket.socket) -> tuple[Request, list[int]]:
    """Take one in; the second is its directory and its descriptors, under numbers of ours.

    Raises:
        OSError: the other side ended before all was said.
    """
    head, places, _, _ = socket.recv_fds(connection, _LENGTH.size, _MOST_DESCRIPTORS)
    try:
        if len(head) != _LENGTH.size:
            raise ConnectionResetError("no request")
        (length,) = _LENGTH.unpack(head)
        text = bytearray()
        while len(text) < length:
            more = connection.recv(length - len(text))
            if not more:
                raise ConnectionResetError("half a request")
            text += more
    except OSError:
        for place in places:
            os.close(place)
        raise
    return Request(**json.loads(text)), places


def become(request: Request, places: list[int]) -> None:
    """Make this process what the request says. It has let go of everything of its own before."""
    os.fchdir(places[0])
    os.close(places[0])
    # First out of the way of the numbers that others are to have.
    above = max([2, *request.numbers]) + 1
    moved = [fcntl.fcntl(place, fcntl.F_DUPFD, above) for place in places[1:]]
    for place in places[1:]:
        os.close(place)
    for place, number in zip(moved, request.numbers, strict=True):
        os.dup2(place, number)
        os.close(place)
    os.umask(request.umask)
    os.sched_setaffinity(0, request.cores)
    os.environ.clear()
    os.environ.update(request.environ)
    sys.argv[:] = request.arguments
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty())  # type: ignore[union-attr]
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _descriptors(arguments: Iterable[str], environ: Mapping[str, str]) -> set[int]:
    """The open ones that matter: a launcher may have left hundreds that do not."""
    named = [environ.get(name, "") for name in _DESCRIPTOR_VARIABLES]
    for word in arguments:
        # A shell's <(command) is such a path.
        for folder in ("/dev/fd/", "/proc/self/fd/"):
            if word.startswith(folder):
                named.append(word[len(folder) :])
    return {number for number in (0, 1, 2, *map(int, filter(str.isdigit, named))) if _open(number)}


def _open(number: int) -> bool:
    try:
        fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True
