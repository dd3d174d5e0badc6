"""Hybrid: short buffers by the hierarchical exchange, long ones by the ring.

Jia et al. ("Highly Scalable Deep Learning Training System", arXiv 1807.11205, 2018): the first
saves rounds, the second bytes. Both are exchanges of their own; this file only says which, once the
number of ranks p is known. With m = p/k groups of k on links of latency alpha and 1/beta bytes a
second, they take the same time for a buffer of

    n* = alpha (2(p-1) - 4(k-1) - 2(m-1)) / (beta (4(k-1)/k + 2(m-1)/m - 2(p-1)/p))

bytes: 500 alpha/beta at p = 1024 and k = 16, which for 5 us and 6 GB/s are 15 MB.

* ``group``: as `hierarchical` has it; k and m are then the largest group and their number.
* ``threshold``: the longest buffer for the hierarchical exchange, such as 1M, instead of n*
  (default 0: n*).
* ``alpha_us`` (default 5) and ``beta_gb_s`` (default 6): latency and GB/s of a link, for n*.

Any number of ranks; where groups save no round, n* is 0 and all is the ring's.
"""

from commbench.groups import Groups
from commbench.topologies import hierarchical
from commbench.units import Bytes

UNKNOWN = Bytes(0)


def choose(
    size: int,
    *,
    group: Groups = hierarchical.OPEN,
    threshold: Bytes = UNKNOWN,
    alpha_us: float = 5.0,
    beta_gb_s: float = 6.0,
) -> str:
    """The choice by buffer size on `size` ranks, such as ``hierarchical@group=4:1M:ring``.

    Raises:
        ValueError: groups that do not have each rank once, or a link without latency or bandwidth.
    """
    groups = hierarchical.settle(size, group)
    widths = [len(ranks) for ranks in groups.of(size)]
    exact = crossover_bytes(size, max(widths), len(widths), alpha_us, beta_gb_s)
    limit = threshold or Bytes(exact)
    return f"hierarchical@group={groups}:{limit}:ring" if limit else "ring"


def crossover_bytes(size: int, group: int, groups: int, alpha_us: float, beta_gb_s: float) -> int:
    """The longest buffer for which groups are as fast as one ring; 0 for none.

    Args:
        size: number of ranks.
        group: of them in the largest group.
        groups: number of groups.
        alpha_us: latency of a link.
        beta_gb_s: its bandwidth.

    Raises:
        ValueError: a link without latency or bandwidth.
    """
    if not (alpha_us > 0 and beta_gb_s > 0):
        raise ValueError(f"alpha_us={alpha_us:g}, beta_gb_s={beta_gb_s:g}: give more than 0")
    rounds_saved = 2 * (size - 1) - 4 * (group - 1) - 2 * (groups - 1)
    if rounds_saved <= 0:
        return 0
    more_volume = 4 * (group - 1) / group + 2 * (groups - 1) / groups - 2 * (size - 1) / size
    return int(rounds_saved * alpha_us * 1e-6 * beta_gb_s * 1e9 / more_volume)
