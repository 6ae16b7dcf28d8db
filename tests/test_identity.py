"""One model for several people: what a reference frame does, from the networks to the command."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from s2vgan import artifact, extraction, groups, ledger
from s2vgan.batches import Batch, Sampler
from s2vgan.cli import main
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.dataset import GroupDataset
from s2vgan.errors import ConfigError, SourceError
from s2vgan.known import Options
from s2vgan.losses import reconstruction_losses
from s2vgan.media import write_wav
from s2vgan.models import FaceCodes, TalkingFace, find_reference
from s2vgan.people import STORED, stored_people, with_references
from s2vgan.portrait import read_portrait
from s2vgan.regions import MOUTH
from s2vgan.spec import GroupSpec
from s2vgan.synthesis import Synthesizer
from s2vgan.training import TrainState, fit_face, train_step
from s2vgan.validation import speak_windows, validate, validation_rows
from tests.conftest import MakeVideo, write_video

SPEC = GroupSpec(size=32)
SMALL = ModelConfig(width=8, identity=True, audio_dropout=0)
CONFIG = Config(SMALL, train=TrainConfig(lr_g=1e-3, batch=8, amp="off", pretrain_steps=0))
VARIANTS = {
    "gru": SMALL,
    "no_gru": dataclasses.replace(SMALL, kind="no_gru"),
    "anew": dataclasses.replace(SMALL, carry_state=False, frame_features="shared"),
    "no base": dataclasses.replace(SMALL, mean_face=False, initial_state="zero"),
}
COLOURS = ((200, 120, 90), (70, 110, 190), (120, 180, 110))


def write_people(data: Path, people: int) -> GroupDataset:
    """Videos of 60 groups: faces of one colour each, mouths as dark as they are loud."""
    random = np.random.default_rng(0)
    for number in range(people):
        rows = []
        for index in range(60):
            loudness = random.uniform(0, 1, 3).repeat([533, 533, 534])
            frames = np.full(SPEC.frame_shape, COLOURS[number], np.uint8)
            top = 7 + random.integers(0, 3)
            frames[:, top : top + 4, 6:26] //= 2  # brows, which speech leaves alone
            for frame, level in enumerate(loudness[[0, 600, 1200]]):
                frames[frame, 22:27, 10:22] = np.multiply(COLOURS[number], 1 - 0.8 * level)
            audio = (loudness * random.normal(0, 6000, 1600)).clip(-32768, 32767)
            boxes = np.zeros((3, 4), np.int16)
            rows.append(groups.Group(0, index, frames, audio.astype(np.int16), boxes))
        write_video(data, f"person{number}", rows, SPEC)
    ledger.write_dataset(data, SPEC)
    dataset = GroupDataset.load(data)
    return with_references(dataset, dataset.split()[0])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("couple") / "data"


@pytest.fixture(scope="module")
def couple(data: Path) -> GroupDataset:
    return write_people(data, 2)


@pytest.fixture(scope="module")
def run(couple: GroupDataset, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("identity") / "run"
    arguments = [
        "--workers", "0", "--steps", "60", "--train.batch", "8", "--train.lr_g", "1e-3",
        "--train.pretrain_steps", "2", "--train.ema", "0.9", "--model.width", "8",
        "--model.identity", "true",
    ]  # fmt: skip
    assert main(["train", "--data", str(data), "--out", str(folder), *arguments]) == 0
    return folder


def inputs(config: ModelConfig, batch: int, count: int) -> tuple[torch.Tensor, ...]:
    samples = SPEC.window(config.audio_past, config.audio_ahead)[1]
    return (
        torch.randn(batch, count, samples) * 0.1,
        torch.randn(batch, count, config.z_dim),
        torch.randn(batch, count, 3, config.pose_dim),
    )


def pixels(frames: np.ndarray) -> torch.Tensor:
    """Frames (n, S, S, 3) uint8 as the networks want them."""
    return torch.from_numpy(np.ascontiguousarray(frames)).movedim(-1, 1).float() / 127.5 - 1


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_each_sequence_is_of_its_own_reference_and_every_weight_counts(config: ModelConfig) -> None:
    torch.manual_seed(0)
    face = TalkingFace(config, SPEC)
    said, reference = inputs(config, 4, 2), torch.rand(4, 3, 32, 32) * 2 - 1
    frames, code, mouth = face(*said, None, reference)
    assert frames.shape == (4, 6, 3, 32, 32) and frames.abs().max() < 1
    (frames.square().sum() + mouth.sum()).backward()
    for name, weight in face.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name
    face.eval()
    with torch.no_grad():
        frames = face(*said, None, reference)[0]
        alone = face(*(part[1:2] for part in said), None, reference[1:2])[0]
        torch.testing.assert_close(frames[1:2], alone, atol=1e-5, rtol=0)
        swapped = face(*said, None, reference.flip(0))[0]
        assert (swapped - frames).abs().mean() > 1e-3
        assert face.identity is not None
        grey = face(*said, None, torch.full((4, 3, 32, 32), 127 / 127.5 - 1))[0]
        torch.testing.assert_close(face(*said)[0], grey)  # nobody is known yet
    if config.mean_face:  # the face is there before anything is learned
        assert (frames - reference.unsqueeze(1)).abs().mean() < 0.35 < reference.abs().mean()


@pytest.mark.parametrize("kind", ["gru", "no_gru"])
def test_the_reference_meets_the_generator_at_each_resolution(kind: str) -> None:
    torch.manual_seed(0)
    face = TalkingFace(VARIANTS[kind], SPEC).eval()
    encoder, generator = face.identity, face.generator
    assert encoder is not None
    condition = torch.randn(2, 2, 16 + 128 + 24)
    with torch.no_grad():
        told = encoder(torch.rand(2, 3, 32, 32), 2)
        assert [part.shape[-1] for part in told.maps] == [4, 8, 16, 32]
        frames = generator(condition, None, told)
        for number in range(4 if kind == "gru" else 3):
            maps = [part + 9 * (place == number) for place, part in enumerate(told.maps)]
            other = generator(condition, None, dataclasses.replace(told, maps=maps))
            assert not torch.equal(other, frames), number
        other = generator(condition, None, dataclasses.replace(told, code=told.code + 9))
        assert not torch.equal(other, frames)


def test_how_many_people_a_model_knows_is_loaded_with_it() -> None:
    face, other = TalkingFace(SMALL, SPEC), TalkingFace(SMALL, SPEC)
    people = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    assert face.identity is not None and other.identity is not None
    face.identity.references = people
    other.load_state_dict(face.state_dict())
    assert torch.equal(other.identity.references, people)
    audio, z, pose = inputs(SMALL, 2, 1)
    face.eval()
    with torch.no_grad():
        first = people[:1].float().expand(2, -1, -1, -1) / 127.5 - 1
        torch.testing.assert_close(
            face.speak(audio, z, pose), face.speak(audio, z, pose, None, first)
        )
    state = face.state_dict() | {"identity.references": people[:, :, :16]}
    with pytest.raises(RuntimeError, match=r"size mismatch for identity\.references"):
        other.load_state_dict(state)


def test_wav2pix_refuses_an_identity() -> None:
    with pytest.raises(ConfigError, match=r"model\.identity to false"):
        ModelConfig(kind="wav2pix", identity=True)


def test_codes_tell_the_motion_and_not_the_person() -> None:
    random = np.random.default_rng(0)
    moves, opening = random.normal(size=(2, 200)).astype(np.float32)
    motion = torch.from_numpy(random.normal(size=(3, 64, 64)).astype(np.float32)) * 0.05
    frames = torch.from_numpy(moves)[:, None, None, None] * motion
    shut = torch.from_numpy(opening)[:, None, None, None] * 0.1
    frames[:, :, *MOUTH.slices(64)] += shut * torch.randn(1, 3, 1, 32)
    looks = torch.from_numpy(random.normal(size=(2, 3, 64, 64)).astype(np.float32)) * 0.3
    both = torch.cat([frames + look for look in looks])
    reference = torch.stack([look + frames[7] for look in looks])
    codes = FaceCodes(3)
    codes.fit(both, reference.repeat_interleave(200, 0))
    assert codes.pose(reference, reference).abs().max() < 1e-4
    assert (codes.reference_pose == 0).all()
    pose, mouth = codes.pose(both, reference), codes.mouth(both, reference)
    torch.testing.assert_close(pose[:200], pose[200:], atol=1e-3, rtol=0)
    torch.testing.assert_close(mouth[:200, 1:], mouth[200:, 1:], atol=1e-2, rtol=0)
    assert abs(np.corrcoef(pose[:200, 0], moves)[0, 1]) > 0.99
    plain = FaceCodes(3)  # without the reference frame the first component is who it is
    plain.fit(both)
    assert (plain.pose(both)[:200, 0] - plain.pose(both)[200:, 0]).abs().min() > 1


def test_the_reference_is_a_frame_of_the_usual_pose_and_mouth() -> None:
    torch.manual_seed(0)
    frames = 0.01 * torch.randn(60, 3, 64, 64)
    turned, open_wide = torch.arange(0, 15), torch.arange(30, 45)
    frames[turned, :, 10:20] += torch.linspace(-1, 1, 64)
    shown = (slice(None), *MOUTH.slices(64))
    for number in open_wide.tolist():
        frames[number][shown] += torch.linspace(-1, 1, 32)
    assert find_reference(frames) not in {*turned.tolist(), *open_wide.tolist()}
    moved = frames.roll(20, 0)
    assert find_reference(moved) == (find_reference(frames) + 20) % 60


def test_references_are_of_each_video_and_of_training_time(couple: GroupDataset) -> None:
    training, held_out = couple.split()
    assert couple.references is not None and couple.references.shape == (2, 32, 32, 3)
    for video, picture in enumerate(couple.references):
        own = couple.frames[training[couple.video[training] == video]].reshape(-1, 32, 32, 3)
        assert (own == picture).all((1, 2, 3)).any()
        assert picture[0, 0].tolist() == list(COLOURS[video])
    again = with_references(dataclasses.replace(couple, references=None), training)
    np.testing.assert_array_equal(again.references, couple.references)
    batch = Batch.gather(couple, np.array([[3, 4], [70, 71]]), CONFIG, torch.device("cpu"))
    torch.testing.assert_close(batch.reference, pixels(couple.references))
    assert Batch.gather(couple, held_out[:1, None], Config(), torch.device("cpu")).reference is None


def test_of_very_many_people_some_are_stored(couple: GroupDataset) -> None:
    assert stored_people(couple).tolist() == [0, 1]
    many = dataclasses.replace(couple, video_ids=tuple(map(str, range(1000))))
    chosen = stored_people(many)
    assert len(set(chosen.tolist())) == STORED and (chosen[0], chosen[-1]) == (0, 999)


def test_a_model_learns_two_people_and_who_is_who(couple: GroupDataset) -> None:
    rows = couple.split()[0]
    state = TrainState.create(CONFIG, SPEC)
    fit_face(state, couple, rows)
    sampler = Sampler.over(couple, rows, CONFIG.train)
    for step in range(30):
        batch = Batch.gather(couple, sampler.rows(step, 0, 1), CONFIG, state.device)
        train_step(state, batch)
    checked = validation_rows(couple, couple.split()[1])
    batch = Batch.gather(couple, checked, CONFIG, state.device)
    assert batch.reference is not None and len(batch.reference) == 2
    state.ema.eval()
    with torch.no_grad():
        right = speak_windows(state.ema, batch.audio, 0, batch.reference)
        wrong = speak_windows(state.ema, batch.audio, 0, batch.reference.flip(0))
    for person in range(2):
        own = reconstruction_losses(right[[person]], batch.frames[[person]], 1, 3)["l1"]
        other = reconstruction_losses(wrong[[person]], batch.frames[[person]], 1, 3)["l1"]
        assert own < 0.15 and other > 4 * own
    readings, _ = validate(state, couple, checked)
    assert readings["val/l1"] < 0.15


def test_the_stored_model_knows_its_people(run: Path, couple: GroupDataset) -> None:
    assert couple.references is not None
    manifest = json.loads((run / "model/manifest.json").read_text())
    assert manifest["people"] == ["person0", "person1"]
    synthesizer = Synthesizer.load(run)
    speech = couple.speech(couple.split()[1][:9])
    first = synthesizer.speak(speech)
    for number, name in enumerate(manifest["people"]):
        picture = synthesizer.person(name)
        assert picture is not None
        np.testing.assert_array_equal(picture, couple.references[number])
        made = synthesizer.speak(speech, reference=picture)
        apart = [distance(made, other[None]) for other in couple.references]
        assert apart[number] < 15 and apart[1 - number] > 50
        assert np.array_equal(made, first) == (number == 0)
        pose = synthesizer.pose_of(couple.references[[number]], couple.references[number])
        assert abs(pose).max() < 1e-4
        if number == 0:  # who is meant where nobody is named
            unnamed, named = synthesizer.stream()._who, synthesizer.stream(reference=picture)._who
            assert unnamed is not None and named is not None
            for one, other in zip(unnamed.maps, named.maps, strict=True):
                assert torch.equal(one, other)  # to the last bit: the frames cannot differ
            np.testing.assert_array_equal(synthesizer.pose_of(couple.references[[0]]), pose)
        stream = synthesizer.stream(reference=picture)
        parts = [stream.push(speech[at : at + 700]) for at in range(0, len(speech), 700)]
        assert distance(np.concatenate([*parts, stream.finish()]), made) < 1
    assert synthesizer.person("nobody") is None
    with pytest.raises(ConfigError, match=r"shape \(32, 32, 3\)"):
        synthesizer.stream(reference=np.zeros((64, 64, 3), np.uint8))


def test_the_wrong_speaker_is_a_control(run: Path, data: Path, tmp_path: Path) -> None:
    assert main(["evaluate", "--data", str(data), "--out", str(tmp_path / "a"), str(run)]) == 0
    rows = json.loads((tmp_path / "a/metrics.json").read_text())["rows"]
    held_out = {(row["name"], row["pose"]): row for row in rows if row["split"] == "heldout"}
    right, wrong = held_out["run", "reference"], held_out["wrong_speaker", "reference"]
    assert wrong["kind"] == "control" and wrong["run"] == right["run"]
    mse = {name: held_out[name]["metrics"]["mse"]["value"] for name in held_out}
    assert mse["wrong_speaker", "reference"] > 10 * mse["run", "reference"]
    assert mse["run", "true"] < mse["wrong_speaker", "reference"] / 10
    one = tmp_path / "one"
    write_people(one, 1)
    assert main(["evaluate", "--data", str(one), "--out", str(tmp_path / "b"), str(run)]) == 0
    names = {row["name"] for row in json.loads((tmp_path / "b/metrics.json").read_text())["rows"]}
    assert "run" in names and "wrong_speaker" not in names


def test_somebody_the_model_has_not_seen_is_measured_by_an_own_frame(
    run: Path, tmp_path: Path
) -> None:
    strangers = write_people(tmp_path / "data", 3)  # the third one
    assert strangers.references is not None
    made = Synthesizer.load(run).speak(
        strangers.speech(np.arange(9)), reference=strangers.references[2]
    )
    apart = [distance(made, other[None]) for other in strangers.references]
    assert apart[2] < min(apart[:2])


def test_speak_takes_a_picture_or_a_name(
    run: Path, couple: GroupDataset, face: np.ndarray, tmp_path: Path
) -> None:
    write_wav(tmp_path / "in.wav", np.zeros(4800, np.float32))
    assert couple.references is not None
    frame, photo = tmp_path / "frame.png", tmp_path / "photo.jpg"
    cv2.imwrite(str(frame), couple.references[1][..., ::-1])
    cv2.imwrite(str(photo), face[..., ::-1])
    command = ["speak", "--model", str(run), "--audio", str(tmp_path / "in.wav"), "--scale", "1"]
    command.append("--no-credentials")  # a signature is another one each time
    made = {}
    for name in ("", "person1", str(frame), str(photo)):
        out = tmp_path / "out.mp4"
        who = ["--reference", name] if name else []
        assert main([*command, "--out", str(out), *who]) == 0
        made[name] = out.read_bytes()
    assert made["person1"] == made[str(frame)] != made[""]
    assert made[str(photo)] not in (made[""], made["person1"])


def test_a_portrait_is_cut_as_the_extraction_cuts(
    face: np.ndarray, make_video: MakeVideo, tmp_path: Path
) -> None:
    path = tmp_path / "face.png"
    cv2.imwrite(str(path), face[..., ::-1])
    found = read_portrait(path, SPEC)
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8
    video = make_video("still.mkv", [(i / 30, face) for i in range(60)], np.zeros(32_000))
    assert extraction.extract_video(str(video), tmp_path / "data", Options(SPEC)).status == "ok"
    ledger.write_dataset(tmp_path / "data", SPEC)
    cut = GroupDataset.load(tmp_path / "data").frames[0][0]
    assert distance(found, cut) < 12 < distance(np.roll(found, 3, 0), cut)
    cv2.imwrite(str(path), found[..., ::-1])
    np.testing.assert_array_equal(read_portrait(path, SPEC), found)  # a frame already


def test_a_reference_that_cannot_be_used_ends_with_a_sentence(
    run: Path, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "in.wav", np.zeros(1600, np.float32))
    blank, text = tmp_path / "blank.png", tmp_path / "text.png"
    cv2.imwrite(str(blank), np.full((200, 200, 3), 127, np.uint8))
    text.write_text("no picture")
    out = tmp_path / "out.mp4"
    cases = {
        (run, str(tmp_path / "nobody.png")): "nobody.png: no such picture",
        (run, str(blank)): "blank.png: no face",
        (run, str(text)): "text.png: not a picture",
        (run_folder, str(blank)): "knows one face",
    }
    for (model, reference), sentence in cases.items():
        command = ["speak", "--model", str(model), "--audio", str(tmp_path / "in.wav")]
        assert main([*command, "--out", str(out), "--reference", reference]) == 2
        assert sentence in capsys.readouterr().err
        assert not out.exists()
    with pytest.raises(ConfigError, match="knows one face"):
        Synthesizer.load(run_folder).stream(reference=np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(SourceError, match="no face"):
        read_portrait(blank, SPEC)


def test_an_untrained_model_round_trips(tmp_path: Path) -> None:
    face = TalkingFace(SMALL, SPEC).eval()
    assert face.identity is not None
    face.identity.references = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    config = Config(SMALL, LossConfig(), TrainConfig())
    artifact.save(
        tmp_path / "model", face, config, name="two", dataset="", step=0, readings={},
        people=["a", "b"],
    )  # fmt: skip
    loaded = artifact.load(tmp_path)
    assert loaded.manifest["people"] == ["a", "b"] and loaded.config.model.identity
    for name, value in face.state_dict().items():
        assert torch.equal(loaded.face.state_dict()[name], value), name
