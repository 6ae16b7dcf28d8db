"""The architecture of a model, drawn from the modules themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from s2vgan.config import ModelConfig
from s2vgan.models import build_discriminator, build_face
from s2vgan.models.conv_gru import ConvGRUCell
from s2vgan.spec import GroupSpec

_WIDTH, _HEIGHT, _GAP, _ROW = 152, 62, 20, 92  # pixels
_PER_ROW = 7  # boxes
_COLOURS = {
    "audio": "#dcebfa",
    "generator": "#e3f4e6",
    "discriminator": "#fbe6e6",
    "gru": "#fff0cc",
}
_TAILS = ("BatchNorm", "LeakyReLU", "ReLU", "Dropout")  # drawn in the box before them


@dataclass(frozen=True)
class Box:
    """One layer.

    Attributes:
        part: of the model that it belongs to.
        title: what it is.
        extras: what follows it before the next layer, such as BatchNorm.
        shape: of its output for one group, without the batch.
        parameters: in all of it.
    """

    part: str
    title: str
    extras: tuple[str, ...]
    shape: str
    parameters: int


def boxes(config: ModelConfig, spec: GroupSpec) -> dict[str, list[Box]]:
    """The layers of the generator side and of the discriminator in the order they are passed.

    Args:
        config: of the model.
        spec: of its groups.

    Returns:
        ``G`` and ``D``. The parameters of the boxes of each sum up to those of its module.
    """
    face, judge = build_face(config, spec).eval(), build_discriminator(config, spec).eval()
    window = spec.window(config.audio_past, config.audio_ahead)[1]
    audio = torch.zeros(1, 1, window)
    z = torch.zeros(1, 1, config.z_dim)
    pose = torch.zeros(1, 1, spec.frames_per_group, config.pose_dim)
    reference = torch.zeros(1, 3, spec.size, spec.size) if config.identity else None
    heard, frames = face.lesson(audio, torch.zeros(1, spec.frames_per_group, 3, *(spec.size,) * 2))
    code = torch.zeros(1, config.audio_dim)
    with torch.inference_mode():
        return {
            "G": _trace(face, "", heard, z, pose, None, reference),
            "D": _trace(judge, "discriminator", frames, code),
        }


def draw(config: ModelConfig, spec: GroupSpec) -> str:
    """The architecture as an SVG element.

    Args:
        config: of the model.
        spec: of its groups.
    """
    rows: list[tuple[str, list[Box]]] = []
    for name, found in boxes(config, spec).items():
        for part in dict.fromkeys(box.part for box in found):
            own = [box for box in found if box.part == part]
            for start in range(0, len(own), _PER_ROW):
                title = f"{name}: {part.replace('_', ' ')}" if not start else ""
                rows.append((title, own[start : start + _PER_ROW]))
    wide = _PER_ROW * (_WIDTH + _GAP)
    high = len(rows) * _ROW + 8
    parts = [
        f'<svg viewBox="-2 0 {wide} {high}" role="img" aria-label="architecture" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="#20242c">'
    ]
    for number, (title, own) in enumerate(rows):
        top = number * _ROW + 22
        parts.append(f'<text x="2" y="{top - 7}" font-weight="600">{escape(title)}</text>')
        for place, box in enumerate(own):
            parts += _drawn(box, place * (_WIDTH + _GAP), top, last=place == len(own) - 1)
    return "\n".join([*parts, "</svg>"])


def _trace(module: nn.Module, part: str, *inputs: Any) -> list[Box]:
    """Boxes of a module's layers; ``part`` names all, or each is named by its top module."""
    seen: list[Box] = []
    hooks = []

    def hook(name: str, layer: nn.Module) -> Any:
        def record(_: nn.Module, __: Any, output: Tensor) -> None:
            kind = type(layer).__name__.removeprefix("Parametrized")
            if seen and kind.startswith(_TAILS):
                tail = next(tail for tail in _TAILS if kind.startswith(tail))
                box = seen[-1]
                count = box.parameters + _count(layer)
                seen[-1] = replace(box, extras=(*box.extras, tail), parameters=count)
                return
            owner = part or name.split(".")[0]
            extras = ("spectral norm",) if hasattr(layer, "parametrizations") else ()
            seen.append(Box(owner, _title(layer, kind), extras, _shape(output), _count(layer)))

        return record

    for name, layer in _layers(module):
        hooks.append(layer.register_forward_hook(hook(name, layer)))
    try:
        module(*inputs)
    finally:
        for handle in hooks:
            handle.remove()
    loose = [
        Box(part or name.split(".")[0], name.split(".")[-1].replace("_", " "), (),
            "×".join(map(str, weight.shape)), weight.numel())
        for name, weight in module.named_parameters()
        if not any(name.startswith(f"{layer}.") for layer, _ in _layers(module))
    ]  # fmt: skip
    return seen + loose


def _layers(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """Modules that are drawn as one: ConvGRUs, the log-mel, and those without modules inside."""
    found = []
    for name, child in module.named_children():
        full = f"{prefix}{name}"
        whole = isinstance(child, ConvGRUCell) or hasattr(child, "parametrizations")
        idle = isinstance(child, nn.Dropout) and child.p == 0
        if whole or type(child).__name__ == "MelSpectrogram":
            found.append((full, child))
        elif not list(child.children()):
            if not idle and not isinstance(child, nn.Sequential):  # an empty one does nothing
                found.append((full, child))
        else:
            found += _layers(child, f"{full}.")
    return found


def _title(layer: nn.Module, kind: str) -> str:
    if isinstance(layer, ConvGRUCell):
        return "ConvGRU 3×3"
    if kind == "MelSpectrogram":
        return "log-mel"
    if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
        size = "×".join(map(str, layer.kernel_size))
        step = layer.stride[0]
        arrow = "↑" if isinstance(layer, nn.ConvTranspose2d) else "↓"
        return f"{kind.rstrip('12d')} {size}" + (f" {arrow}{step}" if step > 1 else "")
    return kind


def _shape(output: Tensor) -> str:
    return "×".join(map(str, output.shape[1:])) or "1"


def _count(layer: nn.Module) -> int:
    return sum(weight.numel() for weight in layer.parameters())


def _drawn(box: Box, left: int, top: int, last: bool) -> Sequence[str]:
    key = next((key for key in ("discriminator", "audio") if box.part.startswith(key)), "generator")
    colour = _COLOURS["gru" if box.title.startswith("ConvGRU") else key]
    middle = left + _WIDTH // 2
    lines = [(box.title, 'font-weight="600"'), (" · ".join(box.extras), 'font-size="9"')]
    lines += [(box.shape, ""), (_short(box.parameters), 'font-size="9" fill="#5a6272"')]
    drawn = [
        f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
        f'fill="{colour}" stroke="#c4cad4"/>'
    ]
    for number, (text, style) in enumerate(lines):
        y = top + 15 + 14 * number
        drawn.append(
            f'<text x="{middle}" y="{y}" text-anchor="middle" {style}>{escape(text)}</text>'
        )
    if not last:
        start, end, y = left + _WIDTH + 3, left + _WIDTH + _GAP - 3, top + _HEIGHT // 2
        drawn.append(f'<path d="M{start} {y}H{end}m-5 -4l5 4l-5 4" fill="none" stroke="#5a6272"/>')
    return drawn


def _short(count: int) -> str:
    """Parameters for people: 1.2 M, 34 k, 512; nothing for none."""
    if count >= 1_000_000:
        return f"{count / 1e6:.1f} M"
    if count >= 10_000:
        return f"{count / 1e3:.0f} k"
    return f"{count:,}" if count else ""
