"""A worker's end: it pushes its gradient to all servers and pulls their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mpi4py import MPI

from commbench.arrays import Array
from commbench.asynchronous.ledger import Message
from commbench.asynchronous.wire import TAG, Share, cuts, encode
from commbench.transport import Transport
from commbench.transport.waiting import wait_until


class Worker:
    """Pushes from one flat buffer and pulls into another."""

    def __init__(
        self,
        comm: MPI.Intracomm,
        transport: Transport,
        shares: Sequence[Share],
        *,
        gradient: Array,
        weights: Array,
        timeout_s: float,
    ) -> None:
        """Prepare it.

        Args:
            comm: for notices alone.
            transport: for elements.
            shares: the servers, in the order in which to send to them.
            gradient: ``(n,)``, of the transport's `allocate`.
            weights: ``(n,)``, overwritten by `exchange`.
            timeout_s: the longest wait for a server, in seconds.
        """
        self._comm = comm
        self._transport = transport
        self._weights = weights
        self._timeout_s = timeout_s
        self._cuts = [
            (share.server, list(cuts((share.start, share.stop), share.server, transport)))
            for share in shares
        ]
        self._senders = [
            (server, [transport.sender(gradient[start:stop], server) for start, stop in pieces])
            for server, pieces in self._cuts
        ]

    def exchange(self, step: int | None, following: int, *, meets: bool) -> None:
        """Push the gradient of a step, if there is one, and wait for the weights to go on with.

        Args:
            step: of the gradient; None sends none.
            following: the next step that this worker may have a gradient for.
            meets: whether to wait until all workers' gradients before `following` are applied.

        Raises:
            PeerTimeout: a server did not answer in time; names this rank, the step and the server.
        """
        message = Message(self._transport.rank, step, following, meets)
        words = encode(message)
        notices = [(to, self._comm.Isend(words, to, TAG)) for to, _ in self._senders]
        pulls = [
            (
                server,
                [
                    self._transport.receiver(stop - start, server, self._weights[start:stop])()
                    for start, stop in pieces
                ],
            )
            for server, pieces in self._cuts
        ]
        pushes = [
            (server, start(False))
            for server, starters in self._senders
            if step is not None
            for start in starters
        ]
        where = f"rank {self._transport.rank}, before step {following}"
        for server, request in notices:
            self._wait(request.Test, f"{where}, waits for server rank {server} to hear of it")
        for server, taken in pushes:
            self._wait(taken, f"{where}, waits for server rank {server} to take its gradient")
        for server, incoming in pulls:
            for one in incoming:
                self._wait(one.ready, f"{where}, waits for the weights from server rank {server}")
                one.data()
                one.release()
        self._transport.arrays.synchronize()

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        if not ready():
            wait_until(ready, self._timeout_s, lambda: what)
