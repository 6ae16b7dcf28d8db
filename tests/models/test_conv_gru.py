import pytest
import torch
import torch.nn.functional as F

from s2vgan.models import ConvGRUCell


def test_it_is_the_published_equations() -> None:
    torch.manual_seed(0)
    cell = ConvGRUCell(5, 3)
    x, state = torch.randn(2, 4, 5, 8, 8), torch.tanh(torch.randn(2, 3, 8, 8))
    bias = torch.randn(3, 8, 8)
    w_xz, w_xr, w_xh = cell.from_input.weight.chunk(3)
    assert cell.from_input.bias is not None
    b_z, b_r, b_h = cell.from_input.bias.chunk(3)
    w_hz, w_hr, w_hh = cell.from_state.weight.chunk(3)
    states = cell(x, state, bias)
    for step in range(4):
        now = x[:, step]
        z = torch.sigmoid(F.conv2d(now, w_xz, b_z, padding=1) + F.conv2d(state, w_hz, padding=1))
        r = torch.sigmoid(F.conv2d(now, w_xr, b_r, padding=1) + F.conv2d(state, w_hr, padding=1))
        n = torch.tanh(
            F.conv2d(now, w_xh, b_h, padding=1) + r * F.conv2d(state, w_hh, padding=1) + bias
        )
        state = (1 - z) * n + z * state
        torch.testing.assert_close(states[:, step], state)


def test_the_state_carries_over_a_cut() -> None:
    torch.manual_seed(0)
    cell = ConvGRUCell(4, 3)
    x, state = torch.randn(1, 6, 4, 8, 8), torch.zeros(1, 3, 8, 8)
    whole = cell(x, state)
    first = cell(x[:, :2], state)
    torch.testing.assert_close(cell(x[:, 2:], first[:, -1]), whole[:, 2:])
    assert not torch.allclose(cell(x[:, 2:], state), whole[:, 2:], atol=1e-3)


def test_states_stay_in_range_and_weights_are_orthogonal() -> None:
    torch.manual_seed(0)
    cell = ConvGRUCell(3, 8)
    states = cell(100 * torch.randn(1, 5, 3, 8, 8), torch.zeros(1, 8, 8, 8))
    assert states.abs().max() <= 1
    rows = cell.from_state.weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(24), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("hidden", [3, 16])
def test_no_state_is_a_state_of_zero(hidden: int, form: torch.memory_format) -> None:
    torch.manual_seed(0)
    cell = ConvGRUCell(4, hidden).to(memory_format=form)
    x, bias = torch.randn(2, 3, 4, 8, 8), torch.randn(hidden, 8, 8)
    gradients = []
    for state in (None, torch.zeros(2, hidden, 8, 8)):
        states = cell(x, state, bias)
        gradients.append(torch.autograd.grad(states.square().sum(), list(cell.parameters())))
        torch.testing.assert_close(states, cell(x, torch.zeros(2, hidden, 8, 8), bias))
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=1e-4)
