"""The drawing has every layer of the model, and every parameter once."""

from xml.etree import ElementTree

import pytest

from s2vgan.cli import COMMANDS, config_of
from s2vgan.config import Config
from s2vgan.diagram import boxes, draw
from s2vgan.models import build_discriminator, build_face
from s2vgan.spec import GroupSpec

FILES = {
    "base": ["conf/base.yaml"],
    "base_no_gru": ["conf/base.yaml", "conf/ablations/no_gru.yaml"],
    "paper": ["conf/paper.yaml"],
    "wav2pix": ["conf/paper.yaml", "conf/ablations/wav2pix.yaml"],
}


def configured(name: str, *more: str) -> Config:
    files = [part for file in FILES[name] for part in ("--config", file)]
    parser = COMMANDS["train"][0]()
    return config_of(parser.parse_args([*files, "--data", "d", "--out", "o", *more]))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [32, 64])
def test_the_parameters_of_the_boxes_are_those_of_the_modules(name: str, size: int) -> None:
    config, spec = configured(name).model, GroupSpec(size=size)
    found = boxes(config, spec)
    for part, build in (("G", build_face), ("D", build_discriminator)):
        whole = sum(weight.numel() for weight in build(config, spec).parameters())
        assert sum(box.parameters for box in found[part]) == whole, part


def test_layers_stand_in_the_order_they_are_passed_with_their_shapes() -> None:
    found = boxes(configured("base").model, GroupSpec())
    audio = [box.title for box in found["G"] if box.part == "audio_encoder"]
    assert audio[0] == "log-mel" and audio[-1] == "Linear"
    made = [box for box in found["G"] if box.part == "generator"]
    shapes = [box.shape for box in made if box.title.startswith("ConvTranspose")]
    assert [shape.split("×", 1)[1] for shape in shapes] == [f"{s}×{s}" for s in (4, 8, 16, 32, 64)]
    assert made[0].extras == ("BatchNorm", "ReLU")
    gru = next(box for box in made if box.title.startswith("ConvGRU"))
    assert gru.shape == "3×3×64×64"  # three states, which are the frames
    assert found["D"][-1].title.startswith("Conv 4×4") and found["D"][-1].shape == "1×1×1"
    assert any("spectral norm" in box.extras for box in found["D"])
    kinds = [box.title for box in boxes(configured("base_no_gru").model, GroupSpec())["G"]]
    assert not any(title.startswith("ConvGRU") for title in kinds)


def test_the_drawing_is_xml_and_has_a_box_for_each_layer() -> None:
    config = configured("base", "--model.identity", "true").model
    svg = ElementTree.fromstring(draw(config, GroupSpec()))
    found = boxes(config, GroupSpec())
    assert len(svg.findall("rect")) == len(found["G"]) + len(found["D"])
    words = [text.text for text in svg.findall("text")]
    assert "G: audio encoder" in words and "G: generator" in words and "D: discriminator" in words
    assert "G: identity" in words
