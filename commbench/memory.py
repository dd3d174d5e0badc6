"""Whether buffers fit into a node's memory, and what is told where something did not."""

from __future__ import annotations

import os

from commbench.errors import UserError


def require_room(option: str, nbytes: int, ranks: int) -> None:
    """Refuse buffers that a node cannot hold, before the system ends a process for them.

    Args:
        option: that asks for them.
        nbytes: of a buffer, of which each rank needs two, for its input and for the sum.
        ranks: of the node.

    Raises:
        UserError: the node's memory is smaller.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 2 * nbytes * ranks > memory:
        raise UserError(
            f"{option} {nbytes}: two such buffers for each of the {ranks} ranks of a node need "
            f"{2 * nbytes * ranks / 1e9:,.1f} GB, and it has {memory / 1e9:,.1f} GB: take shorter "
            "ones, or fewer ranks a node"
        )


def told_of_memory(error: BaseException) -> str:
    """The line for an allocation that failed; "" for any other exception."""
    # torch's own is a RuntimeError, in more lines than one and after the place in its source.
    refused = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if not refused and not isinstance(error, MemoryError):
        return ""
    told = str(error).split("Allocator: ")[-1].split("\n")[0] or "an allocation failed"
    return f"out of memory: {told}; take a smaller model, shorter buffers, or fewer ranks a node"
