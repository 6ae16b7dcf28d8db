import pytest

from s2vgan.config import Config
from s2vgan.errors import ConfigError
from tune.space import (
    KIND,
    LR_D,
    LR_G,
    Choices,
    LogRange,
    Space,
    dimension,
    trial_config,
    trial_name,
)

RATES = Space({LR_G: Choices((1e-4, 2e-4)), LR_D: Choices((3e-4,))})


def test_every_combination_of_a_grid_runs_with_each_kind() -> None:
    grid = RATES.grid()
    assert [point[KIND] for point in grid] == ["gru", "no_gru"] * 2, "side by side"
    assert [(point[LR_G], point[LR_D]) for point in grid] == [(1e-4, 3e-4)] * 2 + [(2e-4, 3e-4)] * 2


def test_draws_are_the_same_for_a_seed_and_run_with_each_kind() -> None:
    space = Space({LR_G: LogRange(1e-5, 1e-3), "loss.gan": Choices((0.01, 0.02))})
    points = space.draws(40, seed=1)
    assert points == space.draws(40, seed=1) != space.draws(40, seed=2)
    assert len(points) == 80 == len({trial_name(point) for point in points})
    for one, other in zip(points[::2], points[1::2], strict=True):
        assert one == other | {KIND: "gru"} and other[KIND] == "no_gru"
    rates = [point[LR_G] for point in points[::2]]
    assert all(1e-5 <= rate <= 1e-3 for rate in rates)
    assert 12 <= sum(rate < 1e-4 for rate in rates) <= 28, "half of them in each decade"
    assert len(Space({LR_G: Choices((1e-4, 2e-4))}).draws(9, 0)) == 4, "no more than there are"


@pytest.mark.parametrize(
    ("name", "texts", "found"),
    [
        ("train.lr_g", ["1e-4", "4e-4"], Choices((1e-4, 4e-4))),
        ("loss.gan", "0.01, 0.02", Choices((0.01, 0.02))),
        ("train.lr_d", "1e-5..1e-3", LogRange(1e-5, 1e-3)),
        ("model.width", "16,32", Choices((16, 32))),
        ("model.mean_face", "true,False", Choices((True, False))),
        ("model.audio_features", "logmel,waveform", Choices(("logmel", "waveform"))),
    ],
)
def test_what_the_user_writes(name: str, texts: str, found: object) -> None:
    assert dimension(name, texts) == found
    assert dimension(name, str(found)) == found, "sweep.json keeps it as text"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("loss.nothing", "1", "no field that a sweep can vary"),
        ("nothing.gan", "1", "no field that a sweep can vary"),
        ("model.kind", "gru", "by --kinds"),
        ("loss.gan", "high", "must be a number"),
        ("model.width", "1.5", "must be a whole number"),
        ("model.mean_face", "perhaps", "true or false"),
        ("loss.gan", "0.1,0.10", "each once"),
        ("loss.gan", "", "at least one value"),
        ("loss.gan", "0..1", "above 0 that rise"),
        ("model.width", "8..32", "a fractional number's field"),
    ],
)
def test_what_cannot_be_varied_is_a_sentence(name: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        dimension(name, text)


def test_a_grid_of_a_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train.lr_g: a grid needs values"):
        Space({LR_G: LogRange(1e-5, 1e-3)}).grid()


def test_a_trial_differs_in_what_it_tries_alone() -> None:
    base = Config()
    point = {KIND: "no_gru", LR_G: 1e-3, LR_D: 2e-3, "loss.gan": 0.5, "model.width": 8}
    tried = trial_config(base, point).to_dict()
    same = base.to_dict()
    for name, value in point.items():
        section, key = name.split(".")
        assert tried[section].pop(key) == value
        del same[section][key]
    assert tried == same
    with pytest.raises(ConfigError, match=r"train.lr_g is -1"):
        trial_config(base, {LR_G: -1.0})


def test_a_name_tells_what_was_tried() -> None:
    point = {KIND: "gru", LR_G: 1e-4, LR_D: 1.5e-4, "loss.gan": 0.02, "model.mean_face": False}
    assert trial_name(point) == "gru_g0.0001_d0.00015_gan0.02_mean_faceFalse"
