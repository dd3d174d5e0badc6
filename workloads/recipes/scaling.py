"""How a recipe follows the batch: its learning rate, and the length of its warmup.

| rule | learning rate at k times the batch | warmup epochs | source |
|-|-|-|-|
| linear | k times | as they are | Krizhevsky 2014; Goyal et al. 2017, section 2.1 |
| sqrt | sqrt(k) times | as they are | Krizhevsky 2014; Hoffer et al. 2017 |
| LEGW: sqrt, and a linear warmup | sqrt(k) times | k times | You et al. 2019 |

Under LEGW an epoch has 1/k of the iterations and the warmup k times the epochs: the warmup's
iterations stay the same at every batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

RULES: dict[str, Callable[[float], float]] = {
    "linear": lambda ratio: ratio,
    "sqrt": math.sqrt,
    "none": lambda ratio: 1.0,
}


def scaled(value: float, rule: str, batch: int, reference_batch: int) -> float:
    """A setting of the reference batch, at this batch."""
    return value * RULES[rule](batch / reference_batch)


def noise_scale(lr: float, images: int, batch: int, momentum: float = 0.0) -> float:
    """How noisy steps are: lr * images / (batch * (1 - momentum)).

    What a recipe keeps when it multiplies the batch instead of dividing the rate. Source: Smith,
    Kindermans, Ying, Le, "Don't decay the learning rate, increase the batch size" (ICLR 2018).
    """
    return lr * images / (batch * (1.0 - momentum))
