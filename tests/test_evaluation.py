"""Evaluation against speakers whose answer is known."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2vgan.config import Config, TrainConfig
from s2vgan.contenders import SHUFFLED, Contender
from s2vgan.controls import from_data
from s2vgan.dataset import GroupDataset
from s2vgan.errors import ConfigError, DatasetError, RunError, SourceError
from s2vgan.evaluation import Evaluation, compare, evaluate
from s2vgan.groups import Group
from s2vgan.ledger import write_dataset
from s2vgan.media import write_wav
from s2vgan.metrics import METRICS, Instruments
from s2vgan.openings import make_ruler
from s2vgan.pieces import cut_pieces, other_moments
from s2vgan.spec import GroupSpec
from tests.conftest import write_video
from tests.test_metrics import talking

SPEC = GroupSpec(size=32)


def write_talking(data: Path, seconds: Sequence[float] = (40,)) -> GroupDataset:
    """A dataset of drawn talking faces, one video per length, with true openings beside each."""
    for number, length in enumerate(seconds):
        count = round(length * 30) // 3 * 3
        frames, opening = talking(count, SPEC.size, seed=number)
        random = np.random.default_rng(number)
        audio = random.integers(-9000, 9000, (count // 3, 1600)).astype(np.int16)
        boxes = np.zeros((3, 4), np.int16)
        gap = count // 6  # a gap in time cuts the video into two segments
        groups = (
            Group(int(i >= gap), i + 5 * (i >= gap), frames[3 * i : 3 * i + 3], audio[i], boxes)
            for i in range(count // 3)
        )
        name = f"video{number}"
        write_video(data, name, groups, SPEC, source=str(data / f"{name}.mp4"))
        ticks = np.concatenate([np.arange(3) + 3 * (i + 5 * (i >= gap)) for i in range(count // 3)])
        table = {"frame": ticks, "time": ticks / 30, "opening": opening.astype(np.float32)}
        pq.write_table(pa.table(table), data / f"{name}.openings.parquet")
    write_dataset(data, SPEC)
    return GroupDataset.load(data)


class Oracle:
    """Answers with the real frames of the speech it hears; with a mean face, if told to."""

    has_pose = True
    has_identity = False

    def __init__(self, dataset: GroupDataset, face: np.ndarray | None = None) -> None:
        self._spec, self._face = dataset.spec, face
        rows = np.arange(len(dataset))
        self._known = {dataset.speech(rows[i : i + 1]).tobytes(): dataset.frames[i] for i in rows}

    def speak(
        self,
        audio: np.ndarray,
        seed: int = 0,
        pose: np.ndarray | None = None,
        reference: np.ndarray | None = None,
    ) -> np.ndarray:
        groups = audio.reshape(-1, self._spec.samples_per_group)
        if self._face is not None:
            return np.stack([self._face] * (3 * len(groups)))
        still = next(iter(self._known.values()))  # of what nobody said
        return np.concatenate([self._known.get(group.tobytes(), still) for group in groups])

    def pose_of(self, frames: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
        return np.zeros((len(frames), 2), np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talking") / "data"
    write_talking(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(data: Path) -> GroupDataset:
    return GroupDataset.load(data)


@pytest.fixture(scope="module")
def outcome(data: Path, dataset: GroupDataset) -> Evaluation:
    training, held_out = dataset.split(0.15)
    mean = dataset.frames[training].reshape(-1, 32, 32, 3).mean(axis=0).round().astype(np.uint8)
    ruler = make_ruler(dataset, data, None, training, held_out)
    contenders = [
        Contender("oracle", "runs/oracle", 7, 0.15, Oracle(dataset)),
        Contender("mean", "runs/mean", 8, 0.15, Oracle(dataset, mean)),
    ]
    return compare(dataset, contenders, Instruments(ruler.opening), training, held_out)


def row(outcome: Evaluation, name: str, split: str = "heldout", **wanted: object) -> dict:
    """The one row with these values."""
    wanted |= {"name": name, "split": split}
    rows = [
        row
        for row in outcome.metrics["rows"]
        if all(row[key] == value for key, value in wanted.items())
    ]
    assert len(rows) == 1, rows
    return rows[0]


def test_real_frames_score_perfectly_and_wrong_audio_does_not(outcome: Evaluation) -> None:
    for split in ("heldout", "train"):
        for pose in ("reference", "true"):
            found = row(outcome, "oracle", split, pose=pose)["metrics"]
            assert found["mse"]["value"] == 0 and found["ssim"]["value"] == pytest.approx(1)
            assert found["mouth_r"]["value"] == pytest.approx(1)
            assert found["seam"]["value"] == pytest.approx(1)
        shuffled = row(outcome, "shuffled_audio", split, run="runs/oracle")["metrics"]
        assert abs(shuffled["mouth_r"]["value"]) < 0.4
        assert shuffled["mouth_amplitude"]["value"] == pytest.approx(1, abs=0.3)


def test_a_model_that_gives_the_mean_face_equals_the_control(outcome: Evaluation) -> None:
    model = row(outcome, "mean", pose="reference")
    control = row(outcome, "mean_face")
    assert model["metrics"] == control["metrics"]
    assert control["metrics"]["mouth_r"]["value"] == 0
    assert (model["kind"], model["seed"]) == ("model", 8)
    assert (control["kind"], control["seed"], control["run"]) == ("control", None, None)


def test_controls_are_ordered_as_they_must_be(outcome: Evaluation) -> None:
    mean, medoid, noise = (
        row(outcome, name)["metrics"] for name in ("mean_face", "medoid_frame", "noise")
    )
    assert mean["mse"]["value"] < medoid["mse"]["value"] < noise["mse"]["value"]
    assert noise["ssim"]["value"] < 0.1
    trained = row(outcome, "mean_face", "train")["metrics"]["mse"]
    assert trained["ci_low"] < trained["value"] < trained["ci_high"]
    assert mean["mse"]["ci_low"] is None  # 6 s are too few blocks for an interval


def test_metrics_json_has_the_documented_shape(outcome: Evaluation, dataset: GroupDataset) -> None:
    content = json.loads(json.dumps(outcome.metrics))
    assert {"rows", "spec", "dataset", "paper"} <= content.keys()
    assert content["spec"] == SPEC.to_dict() and content["dataset"] == dataset.info.sha256
    keys = {"name", "run", "seed", "kind", "split", "pose", "n", "metrics"}
    for found in content["rows"]:
        assert found.keys() == keys
        assert found["metrics"].keys() <= METRICS.keys()
        for value in found["metrics"].values():
            assert value.keys() == {"value", "ci_low", "ci_high"}
    held_out = [found["n"] for found in content["rows"] if found["split"] == "heldout"]
    assert set(held_out) == {3 * len(dataset.split(0.15)[1])}


def test_pieces_are_bounded_spread_out_and_carry_their_own_speech(dataset: GroupDataset) -> None:
    rows = np.arange(len(dataset))
    everything = cut_pieces(dataset, rows, seconds=3, frames=10**9)
    assert sum(len(piece.real) for piece in everything) == 3 * len(dataset)
    assert max(len(piece.real) for piece in everything) <= 90
    some = cut_pieces(dataset, rows, seconds=3, frames=300)
    assert 200 <= sum(len(piece.real) for piece in some) <= 300
    speech = dataset.speech(dataset.segments(rows)[0])
    assert np.array_equal(everything[0].speech, speech[: len(everything[0].speech)])
    for piece in some:
        assert len(piece.speech) == len(piece.other_speech) == len(piece.real) // 3 * 1600
        assert not np.array_equal(piece.speech, piece.other_speech)
    assert cut_pieces(dataset, rows[:0], seconds=3, frames=300) == []


def test_other_moments_are_of_elsewhere_and_never_in_step() -> None:
    counts = [20] * 20
    wrong = other_moments(counts)
    for number, other in enumerate(wrong):
        own = set(range(20 * number, 20 * number + 20))
        assert len(other) == 20 and not own & set(other.tolist())
    assert len({int(other[0]) % 20 for other in wrong}) > 8
    assert [other.tolist() for other in other_moments(counts)] == [o.tolist() for o in wrong]
    [alone] = other_moments([20])
    assert alone[0] == 10
    [nowhere] = other_moments([1])
    assert not len(nowhere)


def test_one_group_has_no_wrong_speech_and_no_such_control(dataset: GroupDataset) -> None:
    contender = Contender("oracle", "runs/oracle", 7, 0.15, Oracle(dataset))
    found = compare(dataset, [contender], Instruments(), np.arange(40), np.arange(50, 51))
    assert row(found, SHUFFLED, "train")
    assert {row["split"] for row in found.metrics["rows"] if row["name"] == SHUFFLED} == {"train"}


def test_both_splits_are_cut_alike(dataset: GroupDataset) -> None:
    """mouth_r is centred in each piece: the same rows must score the same as either split."""
    rows, random = np.arange(100), np.random.default_rng(0)
    frames = random.permutation(dataset.frames.reshape(-1, 32, 32, 3))
    other = replace(dataset, frames=frames.reshape(dataset.frames.shape))
    contender = Contender("other", "runs/other", 7, 0.15, Oracle(other))
    found = compare(dataset, [contender], Instruments(), rows, rows)
    for name in ("mouth_r", "mouth_amplitude"):
        first, second = (
            row(found, "other", split, pose="reference")["metrics"][name]
            for split in ("heldout", "train")
        )
        assert first == second


def test_still_controls_are_of_the_video_they_answer_for(tmp_path: Path) -> None:
    dataset = write_talking(tmp_path / "data", (6, 6))
    training, held_out = dataset.split(0.5)
    medoid = next(entry for entry in from_data(dataset, training) if entry.name == "medoid_frame")
    for piece in cut_pieces(dataset, held_out, 3, 10**6):
        own = dataset.frames[training[dataset.video[training] == piece.video]]
        face = medoid.speak(piece)[0]
        assert (own.reshape(-1, *face.shape) == face).all(axis=(1, 2, 3)).any()


def test_evaluate_without_runs_writes_the_controls_and_says_what_is_missing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2vgan.rulers.find_trunk", lambda trunk: None)
    found = evaluate(data, [], tmp_path / "report")
    written = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert written == found.metrics and written["opening"]["estimator"] == "calibrated"
    assert any("LPIPS is left out" in note for note in written["notes"])
    assert not any("lpips" in row["metrics"] for row in written["rows"])
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["metrics.json"]


def test_a_dataset_without_held_out_time_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2vgan.rulers.find_trunk", lambda trunk: None)
    write_talking(tmp_path / "data", (0.5,))
    found = evaluate(tmp_path / "data", [], tmp_path / "report")
    assert {row["split"] for row in found.metrics["rows"]} == {"train"}
    assert any("no held-out rows" in note for note in found.notes)
    assert found.showcase.split == "train"


class Loaded(Oracle):
    """A loaded model, as far as evaluation looks at it."""

    def __init__(
        self, dataset: GroupDataset, spec: GroupSpec, trained_on: str, held_out: float
    ) -> None:
        super().__init__(dataset)
        self.spec = spec
        self.manifest = {"dataset": trained_on, "seed": 3}
        self.config = Config(train=TrainConfig(held_out=held_out))


def test_runs_are_named_apart_and_those_that_do_not_fit_are_noted(
    data: Path, dataset: GroupDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = dataset.info.sha256
    models = {
        "a/run": Loaded(dataset, SPEC, sha, 0.15),
        "b/run/model": Loaded(dataset, SPEC, "other", 0.3),
        "large": Loaded(dataset, GroupSpec(size=64), sha, 0.15),
    }
    loaded = SimpleNamespace(load=lambda run, device: models[str(run)])
    monkeypatch.setattr("s2vgan.evaluation.Synthesizer", loaded)
    monkeypatch.setattr("s2vgan.rulers.find_trunk", lambda trunk: None)
    found = evaluate(data, list(models), tmp_path / "report")
    assert list(found.contenders) == ["run", "b/run"]
    assert row(found, "b/run", pose="true")["seed"] == 3
    assert any("large is left out" in note and "size=64" in note for note in found.notes)
    assert (
        "b/run was trained on another dataset: which of these rows it has seen is not known."
    ) in found.notes
    # Held-out time is what neither saw, the last 15 %.
    assert row(found, "run", pose="true")["n"] == 3 * len(dataset.split(0.15)[1])
    with pytest.raises(RunError, match="other runs"):
        evaluate(data, ["large"], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_unseen_speech_is_measured_where_no_true_frames_are_needed(
    data: Path, dataset: GroupDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = SimpleNamespace(
        load=lambda run, device: Loaded(dataset, SPEC, dataset.info.sha256, 0.15)
    )
    monkeypatch.setattr("s2vgan.evaluation.Synthesizer", loaded)
    folder = tmp_path / "speech"
    folder.mkdir()
    (folder / "LICENSE.txt").write_text("not a sound")
    sound = np.random.default_rng(0).normal(0, 0.1, 16000 * 11).astype(np.float32)
    write_wav(folder / "a.wav", sound)
    write_wav(tmp_path / "b.wav", sound[:8000])
    found = evaluate(
        data,
        ["run"],
        tmp_path / "report",
        unseen=[folder, tmp_path / "b.wav"],
        metrics=["mse", "sharpness", "sync_r"],
    )
    own = row(found, "run", "unseen", pose="reference")
    assert own["n"] == 3 * (110 + 5) and own["metrics"].keys() <= {"sharpness", "sync_r"}
    assert own["metrics"]["sharpness"]["value"] > 0
    names = {item["name"] for item in found.metrics["rows"] if item["split"] == "unseen"}
    assert {"run", "shuffled_audio", "nearest_audio", "mean_face"} <= names
    assert not names & {"real_frames", "previous_frame", "other_time"}
    held_out = row(found, "run", "heldout", pose="reference")
    assert held_out["metrics"].keys() == {"mse", "sharpness", "sync_r"}
    for wrong, what in ((tmp_path / "none", "no such"), (tmp_path / "empty", "holds no sound")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(SourceError, match=what):
            evaluate(data, [], tmp_path / "no report", unseen=[wrong])
    with pytest.raises(ConfigError, match="there is no sim; choose of mse"):
        evaluate(data, [], tmp_path / "no report", metrics=["ssim", "sim"])
    assert not (tmp_path / "no report").exists()


def test_too_little_data_costs_only_the_instrument_that_it_is_too_little_for(
    tmp_path: Path,
) -> None:
    write_talking(tmp_path / "data", (20,))  # 510 frames of training time
    names = ["mse", "mouth_components_r", "sync_r", "sync_upper_r"]
    found = evaluate(tmp_path / "data", [], tmp_path / "report", metrics=names)
    assert any("sync_r, sync_upper_r" in note and "needs 900" in note for note in found.notes)
    measured = {name for item in found.metrics["rows"] for name in item["metrics"]}
    assert measured == {"mse", "mouth_components_r"}
    write_talking(tmp_path / "less", (8,))
    found = evaluate(tmp_path / "less", [], tmp_path / "report", metrics=names)
    assert any("mouth_components_r" in note and "needs 300" in note for note in found.notes)
    assert {name for item in found.metrics["rows"] for name in item["metrics"]} == {"mse"}


def test_networks_that_nobody_gave_are_told_where_their_metrics_are_asked_for(
    data: Path, tmp_path: Path
) -> None:
    asked = evaluate(data, [], tmp_path / "asked", metrics=["mse", "lse_c", "identity"])
    assert any("--syncnet PATH" in note for note in asked.notes)
    assert any("--identity-model PATH" in note for note in asked.notes)
    other = evaluate(data, [], tmp_path / "other", metrics=["mse"])
    assert not any("--syncnet" in note or "--identity-model" in note for note in other.notes)


def test_the_best_and_the_worst_second_are_found(dataset: GroupDataset) -> None:
    held_out = dataset.split(0.15)[1]
    frames = np.array(dataset.frames)
    frames[held_out[20:30]] = 0  # one second of 6 is black
    broken = Oracle(replace(dataset, frames=frames))
    contender = Contender("broken", "runs/broken", 7, 0.15, broken)
    found = compare(dataset, [contender], Instruments(), np.arange(40), held_out, ["mse"])
    extremes = {extreme.kind: extreme for extreme in found.extremes}
    assert extremes.keys() == {"best", "worst"}
    assert extremes["worst"].seconds == 2.0 and not extremes["worst"].made.any()
    assert extremes["best"].error == 0 < extremes["worst"].error
    assert (extremes["best"].made == extremes["best"].real).all()
    assert len(extremes["worst"].real) == 30


def test_a_run_without_a_model_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing here"):
        evaluate(data, [tmp_path / "nothing here"], tmp_path / "report")
    with pytest.raises(DatasetError, match="no dataset"):
        evaluate(tmp_path, [], tmp_path / "report")
    assert not (tmp_path / "report").exists()
