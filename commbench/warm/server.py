"""The warm interpreter: it waits for clients, forks a rank for each, and tells them how it ended.

It runs on one thread, so a fork is safe, and holds nothing of the launcher's: neither its process
group nor its pipes, or the launcher would wait for it. It ends when the job's ranks have.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import socket
import struct
import sys
from collections.abc import Callable

from commbench.warm.request import STARTED, STATUS, Request, become, receive_request

# A client sends its request at once.
_REQUEST_S = 10.0
# The job's other ranks may still be on their way when those that came have ended.
_LINGER_S = 10.0
_CREDENTIALS = struct.Struct("3i")
_PR_SET_PDEATHSIG = 1


def leave_launcher(keep: int) -> None:
    """Let go of everything that was inherited but one descriptor."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(nowhere, number)
    os.closerange(3, keep)
    os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")


def serve(listener: socket.socket, ranks: int, preload: Callable[[], None]) -> Request | None:
    """Fork a rank for each client until the job has ended.

    Args:
        listener: where clients connect, already bound and listening.
        ranks: of the job on this node; clients, if all of them come.
        preload: brings into memory what ranks need; starts no thread.

    Returns:
        In a rank, what it is; it has become that already. None in the server, at its end.
    """
    preload()
    # What exists now is never collected, so collections do not write to its pages.
    gc.collect()
    gc.freeze()
    return _Server(listener, ranks).run()


class _Server:
    """Its clients and their ranks."""

    def __init__(self, listener: socket.socket, ranks: int) -> None:
        self.listener = listener
        self.awaited = ranks
        self.pid = os.getpid()
        self.ranks: dict[int, socket.socket] = {}
        self.selector = selectors.PollSelector()
        self.wake, self.woken = socket.socketpair()
        for one in (listener, self.wake, self.woken):
            one.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(self.woken, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.wake.fileno(), warn_on_full_buffer=False)
        # They are for the ranks.
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)

    def run(self) -> Request | None:
        while True:
            self.bury()
            idle = not self.ranks
            if idle and self.awaited <= 0:
                return None
            events = self.selector.select(_LINGER_S if idle else None)
            if idle and not events:
                return None
            for key, _ in events:
                if key.fileobj is self.listener:
                    request = self.admit()
                    if request is not None:
                        return request
                elif key.fileobj is self.woken:
                    with contextlib.suppress(BlockingIOError):
                        self.woken.recv(4096)
                else:
                    self.hear(key.data)

    def admit(self) -> Request | None:
        """Fork a rank for a client that has connected; returns in the rank."""
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return None
        connection.settimeout(_REQUEST_S)
        try:
            if not same_user(connection):
                raise PermissionError
            request, places = receive_request(connection)
        except (OSError, ValueError, TypeError):
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            self.let_go(connection)
            become(request, places)
            return request
        for place in places:
            os.close(place)
        self.awaited -= 1
        connection.setblocking(False)
        self.ranks[pid] = connection
        self.selector.register(connection, selectors.EVENT_READ, pid)
        self.tell(connection, STARTED)
        return None

    def hear(self, pid: int) -> None:
        """Pass a client's signals on to its rank; one that has ended takes its rank with it."""
        connection = self.ranks.get(pid)
        if connection is None:  # its rank has been buried since
            return
        try:
            heard = connection.recv(64)
        except BlockingIOError:
            return
        except OSError:
            heard = b""
        if not heard:
            self.selector.unregister(connection)
        for number in heard or [signal.SIGKILL]:
            os.kill(pid, number)

    def bury(self) -> None:
        """Tell the clients of ranks that have ended how they did."""
        while self.ranks:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            connection = self.ranks.pop(pid)
            with contextlib.suppress(KeyError):
                self.selector.unregister(connection)
            self.tell(connection, STATUS.pack(status))
            connection.close()

    def tell(self, connection: socket.socket, words: bytes) -> None:
        with contextlib.suppress(OSError):  # the client is gone, which `hear` sees to
            connection.send(words)

    def let_go(self, own: socket.socket) -> None:
        """In a rank: close what is the server's, and die with it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        for one in (own, self.listener, self.wake, self.woken, *self.ranks.values()):
            one.close()
        self.selector.close()
        if os.getppid() != self.pid:  # it had died before the kernel knew of that
            sys.exit(1)


def same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end is of this user."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(told)[1] == os.getuid())
