"""The controls are what their names say."""

from dataclasses import replace

import numpy as np
import pytest

from s2vgan.contenders import OTHER_TIME, Entry
from s2vgan.controls import from_data
from s2vgan.dataset import GroupDataset
from s2vgan.metrics.image import gradient_energy
from s2vgan.pieces import Piece, cut_pieces, cut_speech
from tests.test_evaluation import write_talking

NAMES = {
    "mean_face", "median_face", "sharpest_frame", "medoid_frame", "previous_frame",
    "nearest_audio", "other_time", "noise", "real_frames",
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> GroupDataset:
    return write_talking(tmp_path_factory.mktemp("controls") / "data", (12,))


@pytest.fixture(scope="module")
def entries(dataset: GroupDataset) -> dict[str, Entry]:
    return {entry.name: entry for entry in from_data(dataset, dataset.split(0.25)[0])}


@pytest.fixture(scope="module")
def piece(dataset: GroupDataset) -> Piece:
    return cut_pieces(dataset, dataset.split(0.25)[1], 10, 10**6)[0]


def test_all_of_them_are_there_and_give_a_frame_for_each(
    entries: dict[str, Entry], piece: Piece
) -> None:
    assert entries.keys() == NAMES
    for entry in entries.values():
        assert entry.kind == "control" and entry.can_speak(piece)
        made = entry.speak(piece)
        assert made.shape == piece.real.shape and made.dtype == np.uint8, entry.name


def test_still_faces(dataset: GroupDataset, entries: dict[str, Entry], piece: Piece) -> None:
    training = dataset.frames[dataset.split(0.25)[0]].reshape(-1, 32, 32, 3)
    for name in ("mean_face", "median_face", "medoid_frame", "sharpest_frame"):
        made = entries[name].speak(piece)
        assert (made == made[0]).all(), name
    assert np.abs(entries["mean_face"].speak(piece)[0] - training.mean(axis=0)).max() <= 0.5
    assert np.abs(entries["median_face"].speak(piece)[0] - np.median(training, axis=0)).max() <= 0.5
    energy = gradient_energy(training)
    assert (entries["sharpest_frame"].speak(piece)[0] == training[energy.argmax()]).all()
    distance = np.square(training - training.mean(axis=0)).mean(axis=(1, 2, 3))
    assert (entries["medoid_frame"].speak(piece)[0] == training[distance.argmin()]).all()


def test_moving_ones(dataset: GroupDataset, entries: dict[str, Entry], piece: Piece) -> None:
    previous = entries["previous_frame"].speak(piece)
    assert (previous[1:] == piece.real[:-1]).all() and (previous[0] == piece.real[0]).all()
    assert (entries["real_frames"].speak(piece) == piece.real).all()
    other = entries[OTHER_TIME].speak(piece)
    everything = dataset.frames[dataset.split(0.25)[1]].reshape(-1, 32, 32, 3)
    assert (other == piece.other_real).all() and not (other == piece.real).all()
    for frame in other[:3]:
        assert (everything == frame).all(axis=(1, 2, 3)).any()


def test_nearest_audio_finds_speech_that_it_has_heard(dataset: GroupDataset, piece: Piece) -> None:
    training = dataset.split(0.25)[0]
    [entry] = [one for one in from_data(dataset, training) if one.name == "nearest_audio"]
    part = dataset.segments(training)[0][20:40]
    heard = replace(piece, rows=np.empty(0, np.int64), speech=dataset.speech(part))
    found = entry.speak(heard)[6:-6]  # at the ends the surroundings differ
    assert (found == np.concatenate(dataset.frames[part])[6:-6]).mean() > 0.9


def test_nearest_audio_of_training_time_is_not_the_moment_itself(dataset: GroupDataset) -> None:
    training = dataset.split(0.25)[0]
    [entry] = [one for one in from_data(dataset, training) if one.name == "nearest_audio"]
    own = cut_pieces(dataset, training, 10, 10**6)[0]
    made = entry.speak(own)
    assert not (made == own.real).all(axis=(1, 2, 3)).any()


def test_speech_that_nobody_was_filmed_saying(
    dataset: GroupDataset, entries: dict[str, Entry]
) -> None:
    training = dataset.split(0.25)[0]
    sound = np.random.default_rng(0).normal(0, 0.1, 16000 * 25).astype(np.float32)
    pieces = cut_speech([sound], dataset, training, 10, 10**6)
    assert sum(len(piece.speech) for piece in pieces) == 16000 * 25
    for piece in pieces:
        assert not piece.is_filmed and len(piece.others) == 9
        assert len(piece.real) * 1600 == 3 * len(piece.speech) == 3 * len(piece.other_speech)
    silent = {name for name, entry in entries.items() if not entry.can_speak(pieces[0])}
    assert silent == {"previous_frame", "other_time", "real_frames"}
    assert cut_speech([sound[:100]], dataset, training, 10, 10**6) == []
