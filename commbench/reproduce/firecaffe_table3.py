"""Table 3 of FireCaffe: hours to train GoogLeNet on 1, 32 and 128 GPUs, from one bandwidth.

Source: Iandola, Ashraf, Moskewicz, Keutzer, "FireCaffe: near-linear acceleration of deep neural
network training on compute clusters" (CVPR 2016), and its author's solver files, by which an epoch
is 1.2 million images.
"""

from __future__ import annotations

from commbench.reproduce import Outcome
from commbench.reproduce._firecaffe import Network, Row, cells, predict, root_mean_square

NEEDS = "nothing: computed in a second"

_TWENTY = "contradicts itself: 21 days / 23.4 hours = 21.5"
GOOGLENET = Network(
    "GoogLeNet",
    "googlenet",
    Row(1, 32, 2_400_000, 21 * 24, 1),
    (
        Row(32, 1024, 84_375, 23.4, 20, _TWENTY),
        Row(128, 1024, 84_375, 10.5, 47),
    ),
)


def run() -> Outcome:
    """The times from the rate of one GPU and the price of our tree."""
    predicted = predict(GOOGLENET)
    return Outcome(
        title="FireCaffe, Table 3: GoogLeNet on ImageNet",
        source="Iandola et al., CVPR 2016",
        cells=tuple(cells(GOOGLENET, predicted)),
        findings=(root_mean_square(predicted),),
        notes=(
            "T = iterations (B / (p r) + tree), r = 42.3 images/s of the row of one K20; nothing "
            "overlaps. The tree is our schedule on titan-gemini, 2.72 GB/s, over all weights with "
            "those of the auxiliary classifiers.",
            "Speedups are of times, though the row of one GPU trains 64 epochs and the others 72; "
            "20 and 47 are not of one baseline (20 x 23.4 h = 468 h, 47 x 10.5 h = 494 h, 21 days "
            "= 504 h).",
        ),
    )
