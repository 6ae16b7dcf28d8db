from pathlib import Path

import pytest
import yaml

from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import ConfigError

CONF = Path(__file__).parents[1] / "conf"


def merged(*names: str) -> Config:
    values: dict[str, dict[str, object]] = {}
    for name in names:
        for section, content in yaml.safe_load((CONF / name).read_text()).items():
            values.setdefault(section, {}).update(content)
    return Config.from_dict(values)


def test_base_is_the_default() -> None:
    assert merged("base.yaml") == Config()
    assert yaml.safe_load((CONF / "base.yaml").read_text()) == Config().to_dict()


def test_paper_states_every_setting() -> None:
    paper = yaml.safe_load((CONF / "paper.yaml").read_text())
    assert {key: set(part) for key, part in paper.items()} == {
        key: set(part) for key, part in Config().to_dict().items()
    }
    config = merged("paper.yaml")
    assert config.loss == LossConfig("bce", gan=1, l1=0, ssim=0, seam=0, mouth=1, audio=0)
    assert (config.train.lr_g, config.train.lr_d, config.train.batch) == (1e-4, 1e-4, 64)
    assert (config.model.z_dim, config.model.pose_dim, config.model.audio_past) == (100, 0, 0)


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_loads_on_both_recipes(path: Path) -> None:
    name = str(path.relative_to(CONF))
    for recipe in ("base.yaml", "paper.yaml"):
        config = merged(recipe, name)
        assert Config.from_dict(config.to_dict()) == config


def test_the_ablation_is_one_key() -> None:
    paper = merged("paper.yaml").to_dict()
    without = merged("paper.yaml", "ablations/no_gru.yaml").to_dict()
    assert paper["model"].pop("kind") == "gru"
    assert without["model"].pop("kind") == "no_gru"
    assert paper == without


def test_wav2pix_is_as_published() -> None:
    config = merged("paper.yaml", "ablations/wav2pix.yaml")
    assert (config.model.kind, config.model.width, config.model.audio_dim) == ("wav2pix", 64, 128)
    assert config.model.audio_past + config.model.audio_ahead == config.train.stride == 1
    assert config.loss == LossConfig(
        "lsgan", wrong=1, gan=1, features=100, l1=50, ssim=0, seam=0, mouth=1, audio=0
    )
    train = config.train
    assert (train.lr_d, train.lr_g, train.beta1, train.beta2) == (4e-4, 1e-4, 0.5, 0.999)
    assert (train.batch, train.sequence, train.ema) == (64, 1, 0)


def test_what_wav2pix_has_not_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"set model.z_dim to 0, .*model.pose_dim .*wav2pix.yaml"):
        ModelConfig(kind="wav2pix")
    published = merged("paper.yaml", "ablations/wav2pix.yaml")
    for section, key, value in [
        ("model", "mean_face", True),
        ("model", "audio_features", "logmel"),
        ("model", "spectral_norm", False),
        ("loss", "audio", 0.3),
        ("train", "pretrain_steps", 300),
    ]:
        values = published.to_dict()
        values[section][key] = value
        with pytest.raises(ConfigError, match=f"as published: set {section}.{key} to [^,]*, or"):
            Config.from_dict(values)
    values = published.to_dict()
    values["model"] |= {"audio_past": 0.0, "audio_ahead": 0.0}
    with pytest.raises(ConfigError, match="seconds around each frame"):
        Config.from_dict(values)
    values = published.to_dict()
    values["train"]["batch"] = 1
    with pytest.raises(ConfigError, match="loss.wrong needs a second sequence"):
        Config.from_dict(values)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"model": {"colour": 1}}, "model.colour"),
        ({"modle": {}}, "modle"),
        ({"train": {"lr_g": 1.0, "lrd": 1.0}}, "train.lrd"),
    ],
)
def test_an_unknown_key_is_named(values: dict[str, dict[str, object]], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Config.from_dict(values)


def test_what_contradicts_or_is_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="train.batch 16"):
        TrainConfig(batch=16, sequence=3)
    with pytest.raises(ConfigError, match="model.mean_face"):
        ModelConfig(mean_face=False)
    with pytest.raises(ConfigError, match="carry_state"):
        Config(model=ModelConfig(carry_state=False))
    with pytest.raises(ConfigError, match="loss.l1"):
        LossConfig(l1=-1)
    with pytest.raises(ConfigError, match="train.held_out"):
        TrainConfig(held_out=0)
    with pytest.raises(ConfigError, match="train.balance"):
        TrainConfig(balance=1.5)
    with pytest.raises(ConfigError, match="train.seed"):
        TrainConfig(seed=-1)
    with pytest.raises(ConfigError, match="train.seed .* between 0 and 9223372036854775807"):
        TrainConfig(seed=2**63)
    assert TrainConfig(seed=2**63 - 1).seed == 2**63 - 1
    with pytest.raises(ConfigError, match="train.beta1"):
        TrainConfig(beta1=1.0)
    with pytest.raises(ConfigError, match="model.kind is 'gan'; use gru or no_gru"):
        Config.from_dict({"model": {"kind": "gan"}})
    with pytest.raises(ConfigError, match="train.lr_g"):
        TrainConfig(lr_g=float("nan"))
