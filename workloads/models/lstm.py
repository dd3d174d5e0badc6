"""One LSTM layer with the parameters of TensorFlow's BasicLSTMCell: one kernel and one bias."""

from __future__ import annotations

import torch
from torch import nn

from commbench.workloads.models.layers import Filler, Layers

State = tuple[torch.Tensor, torch.Tensor]
"""Hidden and cell state, `(b, hidden)` each."""


class Lstm(nn.Module):
    """`(b, steps, features)` to `(b, steps, hidden)`.

    `torch.nn.LSTM` has a second bias, redundant with the first, that the published counts lack. The
    kernel `(4 hidden, features + hidden)` holds input, forget, cell and output gate from the top.
    """

    def __init__(
        self, features: int, hidden: int, *, layers: Layers, fill: Filler, forget_bias: float
    ) -> None:
        """Draws the kernel; biases start at 0, the forget gate's at `forget_bias`."""
        super().__init__()
        self.features, self.hidden = features, hidden
        self.weight = layers.draw((4 * hidden, features + hidden), fill)
        self.bias = layers.draw((4 * hidden,), lambda bias, _: bias.zero_())
        with torch.no_grad():
            self.bias[hidden : 2 * hidden] = forget_bias

    def forward(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, State]:
        """All hidden states and the last state, from `state` or from zero.

        torch has no LSTM in float16 for CPUs; there it stays in float32.
        """
        device = x.device.type
        if (
            device == "cpu"
            and torch.is_autocast_enabled(device)
            and (torch.get_autocast_dtype(device) == torch.float16)
        ):
            with torch.autocast(device, enabled=False):
                return self._run(x.float(), state)
        return self._run(x, state)

    def _run(self, x: torch.Tensor, state: State | None) -> tuple[torch.Tensor, State]:
        h, c = state or (x.new_zeros(len(x), self.hidden), x.new_zeros(len(x), self.hidden))
        weights = [
            self.weight[:, : self.features].contiguous(),
            self.weight[:, self.features :].contiguous(),
            self.bias,
            torch.zeros_like(self.bias),
        ]
        out, h_last, c_last = torch.lstm(
            x,
            (h.unsqueeze(0), c.unsqueeze(0)),
            weights,
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=self.training,
            bidirectional=False,
            batch_first=True,
        )
        return out, (h_last.squeeze(0), c_last.squeeze(0))
