"""A face made lean for inference: the same function with less to compute."""

import torch
from torch import Tensor, nn
from torch.nn.utils import fusion, parametrize

from s2vgan.models.build import build_face
from s2vgan.models.face import Face

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)


class FromVector(nn.Module):
    """A transposed convolution of single pixels, which is one matrix product.

    Args:
        convolution: without padding.
    """

    def __init__(self, convolution: nn.ConvTranspose2d) -> None:
        super().__init__()
        weight, bias = convolution.weight, convolution.bias
        assert bias is not None
        self.shape = weight.shape[1:]
        area = weight[0, 0].numel()
        self.linear = nn.Linear(len(weight), weight[0].numel(), device=weight.device)
        self.linear.weight = nn.Parameter(weight.flatten(1).T.contiguous(), requires_grad=False)
        self.linear.bias = nn.Parameter(bias.repeat_interleave(area), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs, kernel, kernel) of (N, inputs, 1, 1)."""
        return self.linear(x.flatten(1)).unflatten(1, self.shape)


@torch.no_grad()
def folded(face: Face) -> Face:
    """A copy of a face for inference; its frames are the same up to rounding.

    Weights under spectral norm are computed once, BatchNorm is folded into the convolution in
    front of it, and the first transposed convolution of the generator, of a single pixel, becomes
    a matrix product. The copy cannot be trained.

    Args:
        face: in evaluation mode.
    """
    lean = build_face(face.config, face.spec).to(face.codes.pose_mean.device).eval()
    lean.load_state_dict(face.state_dict())  # a deep copy would share the class of spectral norm
    lean.requires_grad_(False)
    for module in list(lean.modules()):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
    for module in list(lean.modules()):
        if isinstance(module, nn.Sequential):
            _fold(module)
    return lean


def _fold(layers: nn.Sequential) -> None:
    for place in range(len(layers) - 1):
        first, second = layers[place], layers[place + 1]
        if isinstance(second, nn.BatchNorm1d | nn.BatchNorm2d) and isinstance(first, CONVOLUTIONS):
            transposed = isinstance(first, nn.ConvTranspose2d)
            layers[place] = fusion.fuse_conv_bn_eval(first, second, transpose=transposed)
            layers[place + 1] = nn.Identity()  # the generator counts its layers in threes
    head = layers[0]
    if isinstance(head, nn.ConvTranspose2d) and head.padding == (0, 0) and head.bias is not None:
        layers[0] = FromVector(head)  # of the generators, which start from one pixel
