"""Table 1 of FireCaffe: data volume, weights and work of five networks at a batch of 1024.

Source: Iandola, Ashraf, Moskewicz, Keutzer, "FireCaffe: near-linear acceleration of deep neural
network training on compute clusters" (CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from commbench.reproduce import Cell, Outcome

NEEDS = "nothing: counted from the layers' shapes in a few seconds"

BATCH = 1024
_MB = 1e6
_FLOOR_BAND = 0.015  # two printed digits: half of the last of 67 is 0.75 %, all of it 1.5 %
_RATIO_BAND = 0.03  # a quotient of two of them


@dataclass(frozen=True)
class Row:
    """A row as printed; the notes say where the paper contradicts itself.

    Attributes:
        network: as printed.
        model: ours, at the crop that reproduces |D|.
        image_size: that crop; None for a model without images.
        data_mb: |D|.
        weights_mb: |W|.
        ratio: |D| / |W|.
        tflops: of a forward and backward pass of the batch.
        ratio_note: why the printed ratio is not to be had; "" if it is.
        tflops_note: likewise.
    """

    network: str
    model: str
    image_size: int | None
    data_mb: float
    weights_mb: float
    ratio: float
    tflops: float
    ratio_note: str = ""
    tflops_note: str = ""


ROWS = (
    Row("NiN", "nin", 224, 5800, 30, 195, 6.7),
    Row(
        *("AlexNet", "alexnet", 224, 1680, 249, 10.2, 7.0),
        ratio_note="contradicts itself: 1680 / 249 = 6.75",
    ),
    Row("GoogLeNet", "googlenet", 224, 19100, 54, 358, 9.7),
    Row(
        *("VGG-19", "vgg19", 224, 42700, 575, 71.7, 120),
        ratio_note="contradicts itself: 42700 / 575 = 74.3",
    ),
    Row(
        *("MSFT-Speech", "speech-mlp", None, 74, 151, 0.49, 0.00015),
        tflops_note="contradicts itself: dense layers of 151 MB take 0.23 TFLOP; printed is about "
        "one sample's forward pass",
    ),
)


def run() -> Outcome:
    """Counts every network and sets it beside the printed row."""
    return Outcome(
        title=f"FireCaffe, Table 1: batch {BATCH}, forward and backward",
        source="Iandola et al., CVPR 2016",
        cells=tuple(cell for row in ROWS for cell in _cells(row)),
        notes=(
            "MB are 10^6 bytes of float32. |D| is what enters convolutions and dense layers, "
            "forward. TFLOPS are 10^12 operations, 2 a multiply-add, backward twice forward.",
            "AlexNet is the one without groups, at a crop of 224 (227 gives 1700 MB).",
            "GoogLeNet's |W| is with the auxiliary classifiers, its |D| and TFLOPS without.",
            "MSFT-Speech is a network made up to its |D| and |W|: the paper gives no layers.",
        ),
    )


def _cells(row: Row) -> Iterator[Cell]:
    from commbench.workloads.models import build_model
    from commbench.workloads.models.cost import count_cost

    cost = count_cost(build_model(row.model, image_size=row.image_size, seed=None))
    data_mb = 4 * cost.inputs * BATCH / _MB
    weights_mb = 4 * cost.parameters / _MB
    tflops = 3 * 2 * cost.macs * BATCH / 1e12
    yield Cell(row.network, "|D| (MB)", data_mb, row.data_mb, _FLOOR_BAND)
    yield Cell(row.network, "|W| (MB)", weights_mb, row.weights_mb, _FLOOR_BAND)
    yield Cell(
        *(row.network, "|D| / |W|", data_mb / weights_mb, row.ratio),
        None if row.ratio_note else _RATIO_BAND,
        row.ratio_note,
    )
    yield Cell(
        *(row.network, "TFLOPS", tflops, row.tflops),
        None if row.tflops_note else _FLOOR_BAND,
        row.tflops_note,
    )
