import dataclasses
from pathlib import Path

import pytest

from s2vgan import detectors
from s2vgan.config import Config, LossConfig
from s2vgan.progress import TrainingProgress
from s2vgan.runlog import RunLog, read_log

CONFIG = Config()
# As a run of the default recipe on the rendered head read at step 500, 32 pixels.
HEALTHY = {
    "val/mouth_r": 0.78, "val/mouth_r_shuffled": 0.08, "val/mouth_amplitude": 0.76,
    "val/sharpness": 0.97, "val/variation": 0.81, "val/audio_effect": 0.8,
}  # fmt: skip


def losses(
    real: float = 0.6,
    fake: float = 0.5,
    loss_d: float = 1.95,
    gan: float = 0.1,
    climb: float = 0,
    skips: float = 0,
) -> list[dict[str, float]]:
    return [
        {
            "d_real": real,
            "d_fake": fake,
            "loss_d": loss_d,
            "loss/gan": gan + climb * line,
            "skipped": skips * line // 1,
        }
        for line in range(25)
    ]


def kinds(found: list[str]) -> list[str]:
    return [sentence.partition(":")[0] for sentence in found]


def find(readings: dict[str, float] | None = None, step: int = 500, **of: float) -> list[str]:
    return kinds(detectors.find(CONFIG, step, losses(**of), HEALTHY | (readings or {})))


def test_a_healthy_run_is_left_alone() -> None:
    assert find() == []
    assert find(real=0.85, fake=0.21, loss_d=1.95) == find(real=1, fake=0.9, climb=0.1) == []


def test_updates_that_are_skipped_again_and_again_are_told_at_once() -> None:
    assert find(step=100, skips=20) == ["Updates are skipped"]
    assert find(skips=0.2) == []  # now and then


def test_d_has_won_when_it_is_always_right_and_g_falls_behind() -> None:
    assert find(real=1, fake=0.99, loss_d=0.1, climb=0.1) == ["D has won"]
    assert find(real=1, fake=0.99, loss_d=0.1, climb=-0.1) == []  # G catches up
    [sentence] = detectors.find(CONFIG, 500, losses(1, 1, 0.1, climb=0.1), HEALTHY)
    assert "lower --train.lr_d (now 0.0002)" in sentence and "100%" in sentence
    alone = dataclasses.replace(CONFIG, loss=LossConfig(gan=0))
    assert detectors.find(alone, 500, losses(1, 1, 0.1, climb=0.1), HEALTHY) == []
    assert detectors.find(CONFIG, 500, losses(1, 1, 0.1, climb=0.1)[:5], HEALTHY) == []


@pytest.mark.parametrize(
    ("form", "wrong", "guessing"),
    [
        ("hinge", 0, 2.0),
        ("bce", 0, 1.3863),
        ("lsgan", 0, 0.405),
        ("hinge", 1, 2.0),
        ("bce", 1, 1.9095),
        ("lsgan", 1, 0.54),
    ],
)
def test_d_has_learned_nothing_when_it_guesses(form: str, wrong: float, guessing: float) -> None:
    loss = LossConfig(form, wrong=wrong)  # type: ignore[arg-type]
    config = dataclasses.replace(CONFIG, loss=loss)
    [sentence] = detectors.find(config, 500, losses(0.46, 0.55, guessing + 0.005), HEALTHY)
    assert sentence.startswith("D has learned nothing:") and "raise --train.lr_d" in sentence
    assert detectors.find(config, 500, losses(0.46, 0.55, 0.97 * guessing), HEALTHY) == []
    assert detectors.find(config, 500, losses(0.9, 0.55, guessing + 0.005), HEALTHY) == []


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        ({"val/audio_effect": 0.05}, "G ignores the speech"),
        ({"val/mouth_r": 0.1}, "The mouth moves, but not with the speech"),
        (
            {"val/mouth_r": 0.01, "val/mouth_r_shuffled": -0.15},
            "The mouth moves, but not with the speech",
        ),
        ({"val/mouth_amplitude": 0.05, "val/audio_effect": 0.0}, "The outputs have collapsed"),
        ({"val/variation": 0.04, "val/mouth_r": 0.0}, "The outputs have collapsed"),
        ({"val/sharpness": 3.5}, "The pictures are noise"),
        ({"val/sharpness": 0.1}, "The pictures are blurred"),
    ],
)
def test_what_the_pictures_tell_is_said_once_a_run_has_settled(
    readings: dict[str, float], said: str
) -> None:
    assert find(readings) == [said]
    assert find(readings, step=250) == []


def test_a_warning_stands_in_the_log_and_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path)
    log.write(250, 900.0, {"val/score": 0.5}, ["Blur: 0.1; go on."])  # of before a resume
    with TrainingProgress(tmp_path, CONFIG):
        log.write(500, 901.0, {"val/score": 0.4}, ["D has won: 99%; lower it."])
        log.write(750, 902.0, {"val/score": 0.3}, ["D has won: 98%; lower it.", "Noise: 4; stop."])
    assert [line.get("warnings", []) for line in read_log(tmp_path)] == [
        ["Blur: 0.1; go on."],
        ["D has won: 99%; lower it."],
        ["D has won: 98%; lower it.", "Noise: 4; stop."],
    ]
    said = capsys.readouterr().err
    assert said.count("D has won") == 1 and "step 500: D has won: 99%; lower it." in said
    assert "step 750: Noise: 4; stop." in said and "Blur" not in said
    assert "50%" in said.split("|")[0]  # from here on the time left is counted
