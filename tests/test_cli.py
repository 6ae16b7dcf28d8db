import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from mlflow import MlflowClient

from s2vgan import artifact
from s2vgan.cli import config_of, main
from s2vgan.cli.train import train_parser
from s2vgan.config import Config, LossConfig, TrainConfig
from s2vgan.media import write_wav
from s2vgan.runlog import LogReader, RunLog, read_log
from s2vgan.tracking import tracking_uri
from s2vgan.train import _workers

CONF = Path(__file__).parents[1] / "conf"
SHORT = [
    "--workers", "0", "--steps", "4", "--model.width", "4", "--train.evaluate_every", "2",
    "--train.pretrain_steps", "2", "--train.batch", "4",
]  # fmt: skip


def parsed(*arguments: str) -> object:
    return config_of(train_parser().parse_args(["--data", "d", "--out", "o", *arguments]))


@pytest.fixture(scope="module")
def run(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "--data", str(toy_data), "--out", str(folder), *SHORT]) == 0
    return folder


def test_of_several_configs_the_later_wins() -> None:
    config = parsed(
        "--config", str(CONF / "paper.yaml"), "--config", str(CONF / "ablations/no_gru.yaml"),
        "--train.batch", "8", "--minutes", "2",
    )  # fmt: skip
    assert (config.model.kind, config.model.z_dim) == ("no_gru", 100)  # type: ignore[attr-defined]
    assert (config.train.batch, config.train.minutes) == (8, 2)  # type: ignore[attr-defined]
    by_steps = parsed("--steps", "7").train  # type: ignore[attr-defined]
    assert (by_steps.steps, by_steps.minutes) == (7, 0)  # no clock ends it


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_passes_the_command_line(path: Path) -> None:
    base = [] if path.parent == CONF else ["--config", str(CONF / "paper.yaml")]
    config = parsed(*base, "--config", str(path))
    for section, values in yaml.safe_load(path.read_text()).items():
        assert values.items() <= vars(getattr(config, section)).items()


def test_wav2pix_trains_and_speaks(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--data", str(toy_data), "--out", str(tmp_path / "run")]
    assert main(["train", *out, *SHORT, "--model.kind", "wav2pix"]) == 2
    assert "set model.z_dim to 0" in capsys.readouterr().err
    recipe = [
        "--config", str(CONF / "paper.yaml"), "--config", str(CONF / "ablations/wav2pix.yaml")
    ]  # fmt: skip
    short = [*recipe, *SHORT, "--train.pretrain_steps", "0"]
    assert main(["train", *out, *short, "--train.batch", "64"]) == 2
    assert "one sequence in each 1 s" in capsys.readouterr().err
    assert main(["train", *out, *short, "--workers", "4"]) == 2
    assert "choose fewer workers" in capsys.readouterr().err
    assert main(["train", *out, *short]) == 0
    write_wav(tmp_path / "in.wav", np.zeros(16_000, np.float32))
    arguments = ["--audio", str(tmp_path / "in.wav"), "--out", str(tmp_path / "out.mp4")]
    assert main(["speak", "--model", str(tmp_path / "run"), *arguments]) == 0
    with av.open(str(tmp_path / "out.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 30
    report = ["--data", str(toy_data), "--out", str(tmp_path / "report"), str(tmp_path / "run")]
    assert main(["evaluate", *report]) == 0
    rows = json.loads((tmp_path / "report/metrics.json").read_text())["rows"]
    assert {row["pose"] for row in rows if row["kind"] == "model"} == {"reference"}


def test_time_ends_a_run(toy_data: Path, tmp_path: Path) -> None:
    arguments = [*SHORT, "--minutes", "0.00001"]
    arguments[arguments.index("--steps") + 1] = "10000"
    out = tmp_path / "run"
    assert main(["train", "--data", str(toy_data), "--out", str(out), *arguments]) == 0
    assert json.loads((out / "model/manifest.json").read_text())["step"] == 10


def test_the_stored_model_is_the_average(run: Path) -> None:
    [latest] = (run / "checkpoints").glob("step_0000004.pt")
    content = torch.load(latest, weights_only=True)
    stored = artifact.load(run).face.state_dict()
    for name, value in stored.items():
        assert torch.equal(value, content["ema"][name]), name
    assert any(not torch.equal(value, content["g"][name]) for name, value in stored.items())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model.colour", "1"], "model.colour"),
        (["--train.lr_g", "fast"], "lr_g"),
        (["--model.kind", "gan"], "kind"),
    ],
)
def test_an_unknown_or_mistyped_setting_is_named(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data", "d", "--out", "o", *arguments])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_help_names_defaults_and_gives_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: s2vgan train --data DATA --out RUN")
    assert "type:" not in said and "--model CONFIG" not in said
    assert "dataset folder or URL (required)" in said
    assert "(default: 0.0002)" in said and "--resume              go on" in said
    assert "\n  s2vgan train --data DATA --out RUN --resume --minutes 120\n" in said


def test_an_unknown_key_in_a_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("loss:\n  perceptual: 1.0\n")
    with pytest.raises(SystemExit) as ended:
        main(["train", "--data", "d", "--out", "o", "--config", str(file)])
    assert ended.value.code == 2
    assert "perceptual" in capsys.readouterr().err


def test_training_leaves_what_it_promises(run: Path) -> None:
    assert json.loads((run / "config.json").read_text())["model"]["width"] == 4
    assert json.loads((run / "run.json").read_text())["mlflow_run"]
    lines = read_log(run)
    assert [line["step"] for line in lines if "loss_g" in line] == [4]
    assert [line["step"] for line in lines if "val/score" in line] == [2, 4]
    assert any("pretrain_audio" in line for line in lines)
    samples = ["step_0000002.mp4", "step_0000002.png", "step_0000004.mp4", "step_0000004.png"]
    assert sorted(path.name for path in (run / "samples").iterdir()) == samples
    client = MlflowClient(tracking_uri())
    tracked = client.get_run(json.loads((run / "run.json").read_text())["mlflow_run"])
    logged = client.list_artifacts(tracked.info.run_id, "samples")
    assert sorted(item.path for item in logged) == [f"samples/{name}" for name in samples]
    assert tracked.data.tags["warnings"] == "none"
    assert json.loads((run / "model/manifest.json").read_text())["step"] == 4


def test_sample_videos_show_the_same_moments_with_their_sound(run: Path) -> None:
    films, sounds = [], []
    for step in (2, 4):
        with av.open(str(run / f"samples/step_000000{step}.mp4")) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        with av.open(str(run / f"samples/step_000000{step}.mp4")) as file:
            sounds.append(np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)]))
        films.append(np.stack(frames).astype(float))
        assert films[-1].shape == (27, 256, 512, 3)  # 0.9 s of held-out time, real and generated
    assert abs(films[0] - films[1])[:, :, :240].mean() < 1  # the real half
    np.testing.assert_array_equal(sounds[0], sounds[1])
    assert sounds[0].std() > 0.01


def test_a_run_goes_on_only_when_asked(
    run: Path, toy_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ["train", "--data", str(toy_data), "--out", str(run), *SHORT]
    assert main(again) == 2
    assert "--resume" in capsys.readouterr().err
    again[again.index("--steps") + 1] = "6"
    assert main([*again, "--resume"]) == 0
    assert "120 groups of 2 videos, at most 6 steps." in capsys.readouterr().out
    assert json.loads((run / "model/manifest.json").read_text())["step"] == 6
    steps = [line["step"] for line in read_log(run) if "val/score" in line]
    assert steps == [2, 4, 6]
    assert main([*again, "--resume", "--train.lr_d", "0.5"]) == 2
    assert "train.lr_d" in capsys.readouterr().err


def test_speaking_makes_a_video_with_sound(run: Path, tmp_path: Path) -> None:
    speech, movie = tmp_path / "speech.wav", tmp_path / "out" / "speech.mp4"
    write_wav(speech, np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32))
    arguments = ["--audio", str(speech), "--out", str(movie), "--scale", "2"]
    assert main(["speak", "--model", str(run), *arguments]) == 0
    with av.open(str(movie)) as file:
        video = file.streams.video[0]
        assert (video.width, video.height, video.average_rate) == (64, 64, 30)
        assert len(list(file.decode(video=0))) == 39  # 1.25 s are 12.5 groups
    with av.open(str(movie)) as file:
        assert any(np.abs(frame.to_ndarray()).max() > 0.1 for frame in file.decode(audio=0))


def test_what_cannot_work_ends_with_a_sentence_and_2(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, out = tmp_path / "empty.wav", tmp_path / "out.mp4"
    speech = tmp_path / "speech.wav"
    write_wav(empty, np.empty(0, np.float32))
    write_wav(speech, np.zeros(1600, np.float32))
    nowhere = tmp_path / "nowhere"
    cases = {
        ("speak", "--model", str(run), "--audio", str(empty)): "empty.wav",
        ("speak", "--model", str(run), "--audio", str(nowhere)): "nowhere",
        ("speak", "--model", str(tmp_path), "--audio", str(empty)): "no model here",
        ("speak", "--model", "models:/nobody@champion", "--audio", str(empty)): "nobody",
        ("evaluate", "--data", str(nowhere), str(run)): "no dataset here",
        ("train", "--data", str(nowhere)): "no dataset here",
        ("speak", "--model", str(run), "--audio", str(speech), "--device", "gpu"): "device gpu",
        ("speak", "--model", str(run), "--audio", str(speech), "--scale", "0"): "scale 0",
        ("speak", "--model", str(run), "--audio", str(speech), "--seed", str(2**64)): "use 0 to 92",
        ("speak", "--model", str(run), "--audio", str(speech), "--seed", "-1"): "seed -1",
    }
    for arguments, sentence in cases.items():
        assert main([*arguments, "--out", str(out)]) == 2, arguments
        said = capsys.readouterr().err
        assert sentence in said and "Traceback" not in said, arguments
        assert not out.exists(), arguments


def test_too_few_groups_are_refused_before_training(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*SHORT[:-1], "400"]
    assert main(["train", "--data", str(toy_data), "--out", str(tmp_path / "run"), *arguments]) == 2
    assert "lower train.batch" in capsys.readouterr().err
    file = tmp_path / "file"
    file.write_text("")
    assert main(["train", "--data", str(toy_data), "--out", str(file), *SHORT]) == 2
    assert "is a file" in capsys.readouterr().err
    arguments = ["--workers", "3", "--train.batch", "4"]
    assert main(["train", "--data", str(toy_data), "--out", str(tmp_path / "run"), *arguments]) == 2
    assert "--workers 3" in capsys.readouterr().err


def test_by_default_there_are_as_many_workers_as_can_share_a_batch() -> None:
    def workers(most: int, batch: int, sequence: int, wrong: float = 0.0) -> int:
        loss, train = LossConfig(wrong=wrong), TrainConfig(batch=batch, sequence=sequence)
        return _workers(most, Config(loss=loss, train=train))

    assert workers(2, 8, 2) == 2 and workers(8, 12, 2) == 6
    assert workers(2, 6, 2) == 1, "three sequences"
    assert workers(2, 4, 2, wrong=1) == 1, "one of wrong speech each"


def test_the_log_forgets_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    for step in (0, 10, 20):
        log.write(step, step / 2, {"loss_g": 1 / 3})
    with log.path.open("a") as stream:
        stream.write('{"step": 30, "sec')  # cut off by a crash
    assert [line["step"] for line in read_log(tmp_path)] == [0, 10, 20]
    RunLog(tmp_path, step=10).write(15, 7.5, {"loss_g": 2.0})
    assert [(line["step"], line["loss_g"]) for line in read_log(tmp_path)] == [
        (0, 0.333333), (10, 0.333333), (15, 2.0)
    ]  # fmt: skip


def test_a_growing_log_is_read_once_and_one_written_anew_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_log(tmp_path / "file") == []
    reader = LogReader(tmp_path)
    assert reader.new() == []
    log = RunLog(tmp_path)
    for step in (0, 10, 20):
        log.write(step, step / 2, {})
        assert [line["step"] for line in reader.new()] == [step]
    assert reader.new() == []
    with log.path.open("a") as stream:  # caught in the middle of being written
        stream.write('{"step": 30}')
        stream.flush()
        assert reader.new() == []
        stream.write("\n")
    assert [line["step"] for line in reader.new()] == [30]
    RunLog(tmp_path, step=10).write(15, 7.5, {})
    assert [line["step"] for line in reader.new()] == [0, 10, 15]


def test_a_dataset_is_shown(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", str(toy_data), "--no-sheet"]) == 0
    said = capsys.readouterr().out
    assert "120 groups of 2 videos" in said and "made up" in said
    assert not (toy_data / "contact_sheet.html").exists()
    sheet = tmp_path / "sheet.html"
    assert main(["data", str(toy_data), "--sheet", str(sheet), "--videos", "1"]) == 0
    assert f"Contact sheet: {sheet}" in capsys.readouterr().out
    assert sheet.read_text().count("data:image/jpeg") == 1
    for arguments, sentence in (
        ([str(tmp_path)], "no dataset here"),
        ([str(toy_data), "--sheet", str(sheet / "x.html")], "cannot be written"),
        ([str(toy_data), "--videos", "0"], "0 videos"),
    ):
        assert main(["data", *arguments]) == 2
        assert sentence in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_bug(toy_data: Path) -> None:
    command = [sys.executable, "-m", "s2vgan.cli", "data", str(toy_data), "--no-sheet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 141
