"""Table 3 of You et al.: what ResNet-50 sends in 90 epochs, at a batch of 32 and of 32,768.

Source: You et al., on scaling ImageNet training ("communication over network"): messages, bytes and
operations a byte; one message of all weights an iteration, whatever the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator

from commbench.reproduce import Cell, Outcome

NEEDS = "nothing: counted in a second"

IMAGES = 1_281_167
EPOCHS = 90
_OPERATIONS = 1e18  # as printed
_BAND = 0.02
_TWO_DIGITS = 0.04  # of 2.7, and of what its bytes are off
_ONE_DIGIT = 0.15
_MEGA = "3686.4 = 3.6 x 1024: 3.6 million was taken for 3.6 x 2^20"


def run() -> Outcome:
    """Counts both rows from the model."""
    return Outcome(
        title="You et al., Table 3: ResNet-50 on ImageNet, 90 epochs",
        source="You et al.",
        cells=tuple(_cells()),
        notes=(
            "Messages are iterations, 90 x 1,281,167 / batch, and each is all weights, 102.2 MB "
            "(the paper's 374 TB make them 104 MB, 26 million of float32).",
            "Operations are those of the forward pass alone, two a multiply-add; training takes "
            "three times as many. The ratio is of the printed 10^18 operations to our bytes.",
        ),
    )


def _cells() -> Iterator[Cell]:
    from commbench.workloads.models import build_model
    from commbench.workloads.models.cost import count_cost

    cost = count_cost(build_model("resnet50@variant=v1", seed=None))
    small = EPOCHS * IMAGES / 32
    large = EPOCHS * IMAGES / 32_768
    weights = 4 * cost.parameters
    operations = 2 * cost.macs * IMAGES * EPOCHS
    yield Cell("batch 32", "messages (millions)", small / 1e6, 3.6, _BAND)
    yield Cell("batch 32", "moved (TB)", small * weights / 1e12, 374, _BAND)
    yield Cell("batch 32", "operations (10^18)", operations / 1e18, 1, _ONE_DIGIT)
    yield Cell("batch 32", "operations a byte", _OPERATIONS / (small * weights), 2673, _BAND)
    yield Cell("batch 32768", "messages", large, 3686, note=_MEGA)
    yield Cell(
        *("batch 32768", "moved (GB)", large * weights / 1e9, 374),
        note="374 TB / 1000, though there are 1024 times fewer messages",
    )
    yield Cell(
        *("batch 32768", "operations a byte (millions)"),
        *(_OPERATIONS / (large * weights) / 1e6, 2.7, _TWO_DIGITS),
    )
