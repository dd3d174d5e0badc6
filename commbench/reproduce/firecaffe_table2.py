"""Table 2 of FireCaffe: hours to train NiN on 1, 32 and 128 GPUs, from one bandwidth.

Source: Iandola, Ashraf, Moskewicz, Keutzer, "FireCaffe: near-linear acceleration of deep neural
network training on compute clusters" (CVPR 2016), and its author's solver files: 220,000 iterations
of 256 images, or 55,000 of 1024.
"""

from __future__ import annotations

from commbench.experiments import Finding
from commbench.reproduce import Outcome
from commbench.reproduce._firecaffe import Network, Predicted, Row, cells, predict, root_mean_square

NEEDS = "nothing: computed in a second"

NIN = Network(
    "NiN",
    "nin",
    Row(1, 256, 220_000, 5.8 * 24, 1),
    (
        Row(32, 256, 220_000, 11, 13),
        Row(32, 1024, 55_000, 6, 23),
        Row(128, 1024, 55_000, 3.6, 39),
    ),
)
_SAME = 0.05


def run() -> Outcome:
    """The times from the rate of one GPU and the price of our tree."""
    predicted = predict(NIN)
    return Outcome(
        title="FireCaffe, Table 2: Network-in-Network on ImageNet",
        source="Iandola et al., CVPR 2016",
        cells=tuple(cells(NIN, predicted)),
        findings=(root_mean_square(predicted), _same_exchange(predicted)),
        notes=(
            "T = iterations (B / (p r) + tree), r = 112.4 images/s of the row of one K20; nothing "
            "overlaps. The tree is our schedule on titan-gemini, 2.72 GB/s.",
            "The rows of AlexNet are Caffe's and Google's, and tell of no exchange. Google's 16 "
            "hours for 6 days are 9.0 times as fast, not 7.7: it is against another baseline.",
        ),
    )


def _same_exchange(predicted: list[Predicted]) -> Finding:
    small, large = (one.printed_exchange_s for one in predicted[:2])
    return Finding(
        "the exchange takes as long at a batch of 256 as at 1024",
        f"printed times leave {1e3 * small:.0f} and {1e3 * large:.0f} ms for it on 32 GPUs",
        abs(small / large - 1) <= _SAME,
    )
