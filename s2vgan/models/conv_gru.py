"""The convolutional gated recurrent unit."""

import torch
from torch import Tensor, nn


class ConvGRUCell(nn.Module):
    r"""ConvGRU (Shi et al. 2017, "Deep Learning for Precipitation Nowcasting", eq. 1-4)::

        Z = sigma(Wxz * X + Whz * H')
        R = sigma(Wxr * X + Whr * H')
        N = tanh(Wxh * X + R . (Whh * H'))
        H = (1 - Z) . N + Z . H'

    with ``*`` a convolution, ``.`` the elementwise product, H' the previous state. Every state
    lies in (-1, 1) if the first one does.

    Args:
        inputs: channels of X.
        hidden: channels of H.
        kernel: size of all convolutions, odd.
        gain: of the orthogonal initialisation of the input's weights.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int = 3, gain: float = 1.0) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = nn.Conv2d(inputs, 3 * hidden, kernel, padding=kernel // 2)
        self.from_state = nn.Conv2d(hidden, 3 * hidden, kernel, padding=kernel // 2, bias=False)
        nn.init.orthogonal_(self.from_input.weight, gain)
        nn.init.orthogonal_(self.from_state.weight)
        self.from_input.bias = nn.Parameter(torch.zeros(3 * hidden))

    def forward(self, x: Tensor, state: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Run over a sequence.

        Args:
            x: (B, T, inputs, H, W), the input of each step.
            state: (B, hidden, H, W), H' of the first step; None for zero, which is faster.
            bias: (hidden, H, W) or (B, hidden, H, W), added inside the tanh of every step.

        Returns:
            (B, T, hidden, H, W), the state after each step; the last one starts the next call.
        """
        parts = [2 * self.hidden, self.hidden]  # both gates at once, the candidate
        projected = _planes(self.from_input(x.flatten(0, 1))).unflatten(0, x.shape[:2])
        states = []
        for now in projected.unbind(1):
            x_gates, inner = now.split(parts, dim=1)
            if state is None:  # convolutions of zero are zero
                update = torch.sigmoid(x_gates[:, : self.hidden])
                old: Tensor | float = 0.0
            else:
                h_gates, h_n = _planes(self.from_state(state)).split(parts, dim=1)
                update, reset = torch.sigmoid(x_gates + h_gates).chunk(2, dim=1)
                inner, old = torch.addcmul(inner, reset, h_n), state
            candidate = torch.tanh(inner if bias is None else inner + bias)
            state = torch.addcmul(candidate, update, old - candidate)
            states.append(state)
        return torch.stack(states, dim=1)


def _planes(x: Tensor) -> Tensor:
    """(N, C, H, W) with each channel in one piece on CPUs, which are slow at slices otherwise."""
    return x.contiguous() if x.device.type == "cpu" else x
