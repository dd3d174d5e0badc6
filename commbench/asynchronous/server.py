"""A server's end: it takes gradients as they come, and does with them what its ledger says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from mpi4py import MPI

from commbench.arrays import Array
from commbench.asynchronous.ledger import Action, Answer, Ledger, Message, Take, Update
from commbench.asynchronous.shard import Shard
from commbench.asynchronous.wire import Question, cuts, next_notice
from commbench.transport import Incoming, Transport
from commbench.transport.waiting import wait_until


@dataclass(eq=False)
class _Snapshot:
    """The weights of one version, while they are being sent."""

    memory: Array
    version: int
    sending: list[tuple[int, Question]] = field(default_factory=list)

    def sent(self) -> bool:
        """Whether nobody reads it any more."""
        self.sending = [pair for pair in self.sending if not pair[1]()]
        return not self.sending


class Server:
    """Serves the workers of one shard."""

    def __init__(
        self,
        comm: MPI.Intracomm,
        transport: Transport,
        shard: Shard,
        ledger: Ledger,
        *,
        memory: Sequence[Array],
        timeout_s: float,
    ) -> None:
        """Prepare it.

        Args:
            comm: for notices alone.
            transport: for elements.
            shard: what it keeps.
            ledger: what it decides by.
            memory: for snapshots of the shard, of the transport's `allocate`; more is made as it is
                needed, at most one for each worker.
            timeout_s: the longest time without a message from any worker, in seconds.
        """
        self._comm = comm
        self._transport = transport
        self._shard = shard
        self._ledger = ledger
        self._free = list(memory)
        self._timeout_s = timeout_s
        self._snapshots: list[_Snapshot] = []
        # Gradients on their way, and those here that are not taken yet.
        self._coming: dict[int, tuple[Message, list[Incoming]]] = {}
        self._here: dict[int, list[Incoming]] = {}
        self._whole = (0, len(shard.weights))
        self.update_s = 0.0

    def serve(self, steps: int) -> None:
        """Go on until all gradients of the first `steps` steps have been applied.

        Raises:
            PeerTimeout: no worker said anything in time; names those that are waited for.
        """
        while self._ledger.complete < steps:
            wait_until(self._hear, self._timeout_s, self._waiting_for)

    def finish(self) -> None:
        """Wait until all answers have been taken.

        Raises:
            PeerTimeout: one was not, in time; names the worker.
        """
        for snapshot in self._snapshots:
            for worker, sent in snapshot.sending:
                wait_until(
                    sent,
                    self._timeout_s,
                    lambda worker=worker: (  # type: ignore[misc]
                        f"rank {self._transport.rank}, a server, waits for rank {worker} to take "
                        "its weights"
                    ),
                )

    def _hear(self) -> bool:
        """Handle what has arrived; whether that was anything."""
        heard = False
        while (message := next_notice(self._comm)) is not None:
            heard = True
            if message.step is None:
                self._act(self._ledger.handle(message))
                continue
            pieces = cuts(self._whole, message.worker, self._transport)
            incoming = [self._transport.receiver(b - a, message.worker)() for a, b in pieces]
            self._coming[message.worker] = (message, incoming)
        for worker, (message, incoming) in list(self._coming.items()):
            if all(one.ready() for one in incoming):
                heard = True
                del self._coming[worker]
                self._here[worker] = incoming
                self._act(self._ledger.handle(message))
        for snapshot in self._snapshots:
            snapshot.sent()
        return heard

    def _act(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Take(worker, first):
                    self._take(worker, first)
                case Update(step):
                    start = perf_counter()
                    self._shard.update(step)
                    self.update_s += perf_counter() - start
                case Answer(worker):
                    self._answer(worker)

    def _take(self, worker: int, first: bool) -> None:
        pieces = cuts(self._whole, worker, self._transport)
        for bounds, incoming in zip(pieces, self._here.pop(worker), strict=True):
            self._shard.take(bounds, incoming.data(), first=first)
            incoming.release()

    def _answer(self, worker: int) -> None:
        # Sent from a copy: the next update does not wait for a slow reader of this one.
        snapshot = self._snapshot()
        for start, stop in cuts(self._whole, worker, self._transport):
            send = self._transport.sender(snapshot.memory[start:stop], worker)
            snapshot.sending.append((worker, send(False)))

    def _snapshot(self) -> _Snapshot:
        version = self._ledger.version
        if self._snapshots and self._snapshots[-1].version == version:
            return self._snapshots[-1]
        sent = [one for one in self._snapshots if one.sent()]
        self._snapshots = [one for one in self._snapshots if one not in sent]
        self._free += [one.memory for one in sent]
        arrays = self._transport.arrays
        memory = self._free.pop() if self._free else arrays.wire_empty(self._whole[1])
        arrays.assign(memory, self._shard.weights)
        self._snapshots.append(_Snapshot(memory, version))
        return self._snapshots[-1]

    def _waiting_for(self) -> str:
        ranks = self._ledger.awaited
        return (
            f"rank {self._transport.rank}, a server, waits for step {self._ledger.complete} of "
            f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
        )
