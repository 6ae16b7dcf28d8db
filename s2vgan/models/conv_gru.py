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

    def forward(self, x: Tensor, state: Tensor, bias: Tensor | None = None) -> Tensor:
        """Run over a sequence.

        Args:
            x: (B, T, inputs, H, W), the input of each step.
            state: (B, hidden, H, W), H' of the first step.
            bias: (hidden, H, W) or (B, hidden, H, W), added inside the tanh of every step.

        Returns:
            (B, T, hidden, H, W), the state after each step; the last one starts the next call.
        """
        batch, steps = x.shape[:2]
        projected = self.from_input(x.flatten(0, 1)).unflatten(0, (batch, steps))
        states = []
        for step in range(steps):
            x_z, x_r, x_n = projected[:, step].chunk(3, dim=1)
            h_z, h_r, h_n = self.from_state(state).chunk(3, dim=1)
            update = torch.sigmoid(x_z + h_z)
            reset = torch.sigmoid(x_r + h_r)
            inner = x_n + reset * h_n
            candidate = torch.tanh(inner if bias is None else inner + bias)
            state = (1 - update) * candidate + update * state
            states.append(state)
        return torch.stack(states, dim=1)
