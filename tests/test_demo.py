import sys
from itertools import combinations, pairwise, product
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cv2.data import haarcascades

from s2vgan import demo, media
from s2vgan.demo import speech
from s2vgan.demo.face import Face, Pose
from s2vgan.demo.motion import blinks, sway
from s2vgan.demo.persons import PERSONS, Person
from s2vgan.demo.speech import SENTENCES, SPEAKERS, Sound, compose, synthesize, synthesize_speech
from s2vgan.demo.visemes import VISEMES, mouth_shapes
from s2vgan.errors import ConfigError, S2VError

SECONDS = 4.0


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> demo.Rendered:
    return demo.render(tmp_path_factory.mktemp("demo") / "talk.mp4", seconds=SECONDS)


@pytest.fixture(scope="module")
def face() -> Face:
    return Face(256)


@pytest.fixture(scope="module")
def haar() -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(haarcascades + "haarcascade_frontalface_default.xml")


def decode(video: Path) -> np.ndarray:
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def faces(haar: cv2.CascadeClassifier, frame: np.ndarray) -> np.ndarray:
    return np.asarray(haar.detectMultiScale(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 1.1, 5))


def mouth(face: Face, pose: Pose) -> np.ndarray:
    """Float RGB of a box around the lips of a 256 pixel frame whose head is still."""
    return face.draw(pose)[160:190, 98:162].astype(float)


def inside_area(pixels: np.ndarray) -> int:
    """Pixels that are no skin and no lip: dark, or without red as teeth are."""
    luma = pixels @ [0.299, 0.587, 0.114]
    return int(((luma < 90) | (pixels[..., 0] - pixels[..., 1] < 18)).sum())


def test_video_sound_and_openings_have_the_same_length(rendered: demo.Rendered) -> None:
    frames = decode(rendered.video)
    assert frames.shape == (120, 256, 256, 3)
    table = pq.read_table(rendered.openings)
    assert table.schema.equals(
        pa.schema([("frame", pa.int32()), ("time", pa.float64()), ("opening", pa.float32())])
    )
    assert table["frame"].to_pylist() == list(range(120))
    np.testing.assert_allclose(table["time"], np.arange(120) / 30)
    openings = demo.read_openings(rendered.video)
    assert openings.min() >= 0 and openings.max() <= 1 and openings.std() > 0.1
    with av.open(str(rendered.video)) as container:
        assert container.streams.video[0].average_rate == 30
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.audio[0].codec_context.name == "aac"
    audio = media.read_audio(rendered.video)
    assert abs(len(audio) - SECONDS * 16000) <= 2048  # AAC comes in frames of 1,024
    assert np.abs(audio).max() > 0.2


def test_same_arguments_give_the_same_video(rendered: demo.Rendered, tmp_path: Path) -> None:
    again = demo.render(tmp_path / "again.mp4", seconds=SECONDS)
    assert np.array_equal(decode(again.video), decode(rendered.video))
    assert np.array_equal(media.read_audio(again.video), media.read_audio(rendered.video))
    assert again.openings.read_bytes() == rendered.openings.read_bytes()
    other = demo.render(tmp_path / "other.mp4", seconds=1, seed=1)
    assert not np.array_equal(demo.read_openings(other.video), demo.read_openings(again.video)[:30])


def test_speakers_differ_in_sound_and_picture() -> None:
    voices = [synthesize_speech("Good morning, everybody.", who)[0] for who in range(len(SPEAKERS))]
    assert len({voice.tobytes() for voice in voices}) == len(SPEAKERS)
    colours = [Face(192, who.tint).draw(Pose(0)).mean((0, 1)).round() for who in SPEAKERS]
    assert len({tuple(colour) for colour in colours}) == len(SPEAKERS)


def test_speech_is_the_same_each_time_and_its_sounds_leave_no_gap() -> None:
    audio, sounds = synthesize_speech("My moose is here.")
    again, same = synthesize(["My moose is here."])[0]
    assert np.array_equal(audio, again) and sounds == same
    assert audio.dtype == np.float32 and 0.3 < np.abs(audio).max() < 1
    assert "".join(sound.ipa for sound in sounds).startswith("maɪmˈuːs")
    assert sounds[0].start == 0 and sounds[-1].end == pytest.approx(len(audio) / 16000, abs=0.03)
    assert all(one.end == two.start for one, two in pairwise(sounds))


def test_resampling_keeps_a_tone() -> None:
    seconds = 0.5
    wave = np.sin(2 * np.pi * 1000 * np.arange(seconds * 22050) / 22050) * 20000
    tone = speech._resample(wave.astype(np.int16))
    assert len(tone) == seconds * 16000
    expected = np.sin(2 * np.pi * 1000 * np.arange(seconds * 16000) / 16000) * 20000 / 32768 * 0.9
    assert np.abs(tone - expected).max() < 1e-3


def test_composed_speech_fills_its_time_and_repeats_nothing_early() -> None:
    lines = ("Bob.", "Ann.", "Kate is at home.")
    audio, sounds = compose(lines, 12.5, 0, np.random.default_rng(0))
    assert len(audio) == 12.5 * 16000 and audio[-1] == 0
    assert sounds[0].start == 0 and sounds[-1].end == 12.5
    assert all(one.end == pytest.approx(two.start) for one, two in pairwise(sounds))
    quiet = [s for s in sounds if not s.ipa and s.end - s.start > 0.15]
    assert len(quiet) >= 4
    for pause in quiet:
        part = audio[round((pause.start + 0.03) * 16000) : round(pause.end * 16000)]
        assert np.abs(part).max() < 0.01
    names = [s.ipa.lstrip("ˈˌ") for s in sounds]
    orders = "".join({"ɑː": "B", "n": "A", "k": "K"}.get(name, "") for name in names)
    assert {*orders[:3]} == {*orders[3:6]} == set("BAK")


def test_sentences_hold_the_sounds_of_english() -> None:
    heard = {mark for _, sounds in synthesize(list(SENTENCES)) for s in sounds for mark in s.ipa}
    assert heard >= set("pbtdkɡmnŋfvθðszʃʒhɹljwiɪeɛæɑʌəɚɜɔoʊu")
    assert heard - set(VISEMES) <= set("ˈˌː:ʲ̩")
    assert len(set(SENTENCES)) == len(SENTENCES) >= 40


def test_mouth_opens_for_a_and_closes_for_m_b_p_and_silence() -> None:
    _, sounds = synthesize_speech("Papa. Mama. Bob spots a calm spa.")
    times = np.arange(0, sounds[-1].end, 0.005)
    shapes = mouth_shapes(sounds, times)
    assert shapes.min(0).tolist() >= [0, -1, 0, 0] and shapes.max() <= 1

    def openings(sound: Sound) -> np.ndarray:
        return shapes[(times >= sound.start) & (times < sound.end), 0]

    closed = [openings(sound).min() for sound in sounds if sound.ipa in "mbp" and sound.ipa]
    wide = [openings(sound).max() for sound in sounds if sound.ipa == "ˈɑː"]
    silent = [
        openings(sound)[-1] for sound in sounds if not sound.ipa and len(openings(sound)) > 20
    ]
    assert len(closed) >= 6 and max(closed) < 0.08
    assert len(wide) >= 4 and min(wide) > 0.7
    assert len(silent) >= 2 and max(silent) < 0.02
    assert np.abs(np.diff(shapes[:, 0])).max() < 0.1  # no jump within 5 ms


def test_rounded_and_spread_vowels() -> None:
    times = np.arange(0, 0.5, 0.005)
    rounded = mouth_shapes([Sound("ˈuː", 0.0, 0.5)], times)[50]
    spread = mouth_shapes([Sound("ˈiː", 0.0, 0.5)], times)[50]
    assert rounded[1] < -0.9 and spread[1] > 0.9


def test_picture_agrees_with_the_openings(face: Face) -> None:
    _, sounds = synthesize_speech(
        "Five foxes moved a big blue box, and how we all laughed at them."
    )
    shapes = mouth_shapes(sounds, np.arange(0, sounds[-1].end, 1 / 30))
    areas = [inside_area(mouth(face, Pose(*shape))) for shape in shapes.tolist()]
    assert np.corrcoef(areas, shapes[:, 0])[0, 1] > 0.9
    sweep = [inside_area(mouth(face, Pose(opening))) for opening in np.linspace(0, 1, 6).tolist()]
    assert all(one < two for one, two in pairwise(sweep))


def test_rounding_narrows_the_mouth(face: Face) -> None:
    def width(spread: float) -> int:
        pixels = mouth(face, Pose(0.5, spread))
        dark = pixels @ [0.299, 0.587, 0.114] < 70
        return int(dark.any(0).sum())

    assert width(-1) < 0.7 * width(0) < width(1)


def test_closed_mouth_shows_no_teeth(face: Face) -> None:
    def teeth(pixels: np.ndarray) -> int:
        pixels = pixels.astype(int)
        white = (pixels.min(-1) > 160) & (pixels[..., 0] - pixels[..., 1] < 15)
        return int(white.sum())

    assert teeth(face.photo[240:285, 147:243]) > 100  # the smile that was closed
    assert teeth(mouth(face, Pose(0.4, 0.5, 0.8))) > 50
    assert teeth(mouth(face, Pose(0))) == 0


def test_only_the_lower_face_moves_with_the_mouth(face: Face) -> None:
    still, open_ = face.draw(Pose(0)).astype(int), face.draw(Pose(1, -1)).astype(int)
    assert np.abs(still - open_)[:130].max() == 0
    assert np.abs(still - open_)[-20:].max() == 0


def test_blink_covers_the_eyes_alone(face: Face) -> None:
    still, closed = face.draw(Pose(0)), face.draw(Pose(0, blink=1))
    changed = np.abs(still.astype(int) - closed).max(-1) > 8
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 200
    assert rows.min() > 100 and rows.max() < 135 and columns.min() > 85 and columns.max() < 180
    whites = [(part[100:135, 90:175].min(-1) > 150).sum() for part in (still, closed)]
    assert whites[0] > 0 and np.abs(still[:100].astype(int) - closed[:100]).max() == 0


def test_sway_moves_the_head_and_not_the_background(face: Face) -> None:
    still, moved = (
        face.draw(Pose(0, right=shift, turn=shift / 100)).astype(int) for shift in (0, 3)
    )
    assert np.abs(still - moved)[90:150, 70:190].mean() > 4
    assert np.abs(still - moved)[-10:].max() == 0
    assert np.abs(still - moved)[:, :6].max() == 0


def test_head_and_eyelids_know_nothing_of_the_speech() -> None:
    times = np.arange(0, 120, 1 / 30)
    rng = np.random.default_rng(0)
    _, sounds = compose(SENTENCES, 120, 0, rng)
    opening = mouth_shapes(sounds, times)[:, 0]
    lids, heads = blinks(times, rng), sway(times, rng)
    assert lids.min() == 0 and lids.max() == 1 and 0.01 < lids.mean() < 0.15
    starts = int(((lids[1:] > 0) & (lids[:-1] == 0)).sum())
    assert 15 <= starts <= 60
    assert heads.shape == (len(times), 4) and heads.std(0).min() > 0.002
    assert np.abs(np.diff(heads[:, :2], axis=0)).max() < 0.5  # slow: under half a pixel a frame
    for column in (lids, *heads.T):
        assert abs(np.corrcoef(column, opening)[0, 1]) < 0.1


def test_haar_finds_every_face(
    rendered: demo.Rendered, face: Face, haar: cv2.CascadeClassifier
) -> None:
    found = [len(faces(haar, frame)) for frame in decode(rendered.video)[::2]]
    assert np.mean(np.array(found) == 1) >= 0.99
    reach = (3.0, 2.0, 0.03, 0.02)
    for opening, spread, blink, side in product((0.0, 1.0), (-1.0, 1.0), (0.0, 1.0), (-1, 1)):
        move = [side * part for part in reach]
        boxes = faces(haar, face.draw(Pose(opening, spread, 0.5, 0.5, blink, *move)))
        assert len(boxes) == 1 and boxes[0][2] >= 80


def test_the_first_person_is_the_photograph_itself() -> None:
    photo = np.random.default_rng(0).uniform(0, 255, (60, 60, 3)).astype(np.float32)
    assert PERSONS[0].coloured(photo, 1.5, 0, 0) is photo
    x, y = np.meshgrid(*2 * [np.arange(50, dtype=np.float32)])
    assert PERSONS[0].source(x, y)[0] is x and PERSONS[0].source(x, y)[1] is y
    mirrored, same = Person(mirrored=True).source(x, y)
    np.testing.assert_allclose(mirrored, 444 - x)
    assert np.array_equal(same, y)


def test_people_look_different_and_all_are_faces_that_speak(haar: cv2.CascadeClassifier) -> None:
    drawn = []
    for person in PERSONS:
        face = Face(256, person=person)
        shut, wide = face.draw(Pose(0)).astype(float), face.draw(Pose(1)).astype(float)
        for frame in (shut, wide):
            assert len(faces(haar, frame.astype(np.uint8))) == 1
        change = abs(wide - shut).mean(-1)
        assert change[160:200, 98:162].mean() > 5 and change[:130].max() <= 1
        drawn.append(shut)
    for one, other in combinations(drawn, 2):
        assert abs(one - other)[70:190, 75:185].mean() > 15


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"speaker": 9}, "speaker 9"),
        ({"person": 4}, "person 4: use 0 to 3"),
        ({"person": -1}, "person -1"),
        ({"speaker": -1}, "speaker -1"),
        ({"size": 100}, "size 100"),
        ({"seconds": 0}, "seconds 0"),
        ({"seed": -1}, "seed -1: use 0 or more"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        demo.render(tmp_path / "x.mp4", **arguments)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(S2VError, match=r"pip install -e '\.\[demo\]'"):
            synthesize_speech("Hello.")
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(S2VError, match=r"pip install -e '\.\[demo\]'"):
        Face(256)


def test_unknown_voice_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = speech.Speaker("Nobody", "xx-nowhere", 50, 150, (1, 1, 1))
    monkeypatch.setattr(speech, "SPEAKERS", (nobody,))
    with pytest.raises(S2VError, match="no voice 'xx-nowhere'"):
        synthesize_speech("Hello.")


def test_nothing_is_left_of_a_render_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Face, pose: Pose) -> np.ndarray:
        raise RuntimeError("the light went out")

    monkeypatch.setattr(Face, "draw", fail)
    with pytest.raises(RuntimeError, match="light"):
        demo.render(tmp_path / "x.mp4", seconds=1)
    assert list(tmp_path.iterdir()) == []
