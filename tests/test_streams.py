"""Streams that share forwards give the frames that each of them gives alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2vgan.artifact import LoadedModel
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import ConfigError, SourceError
from s2vgan.models import TalkingFace, build_face
from s2vgan.spec import GroupSpec
from s2vgan.streams import BLOCK
from s2vgan.synthesis import Stream, Synthesizer, advance

SPEC = GroupSpec(size=32)
SAMPLES = 6_500  # 5 groups
MODELS = {
    "gru": ModelConfig(width=4),
    "identity": ModelConfig(width=4, identity=True),
    "paper": ModelConfig(
        z_dim=8, width=4, audio_features="waveform", audio_past=0, audio_ahead=0,
        frame_features="shared", initial_state="zero", carry_state=False, mean_face=False,
        pose_dim=0,
    ),
    "no_gru": ModelConfig(kind="no_gru", width=4),
    "wav2pix": ModelConfig(
        kind="wav2pix", z_dim=0, width=4, audio_features="waveform", audio_past=0.1,
        audio_ahead=0.1, audio_dropout=0, initial_state="zero", carry_state=False,
        mean_face=False, pose_dim=0,
    ),
}  # fmt: skip


def random_model(model: ModelConfig) -> LoadedModel:
    """A model in which seed, pose, person and state all show in the frames."""
    torch.manual_seed(1)
    face = build_face(model, SPEC)
    for weight in face.parameters():
        weight.data += 0.15 * torch.randn_like(weight)
    for module in face.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    if isinstance(face, TalkingFace) and face.identity is not None:
        face.identity.references = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    config = Config(model, LossConfig(seam=0, audio=0), TrainConfig(sequence=1, pretrain_steps=0))
    return LoadedModel(face.eval(), config, SPEC, {"people": ["anna", "ben"]})


@pytest.fixture(scope="module")
def synthesizer() -> Callable[[str], Synthesizer]:
    made: dict[str, Synthesizer] = {}

    def get(kind: str) -> Synthesizer:
        if kind not in made:
            made[kind] = Synthesizer(random_model(MODELS[kind]))
        return made[kind]

    return get


def random_speech(seed: int, samples: int = SAMPLES) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def options(synthesizer: Synthesizer, seed: int) -> dict[str, Any]:
    """What a stream may be given, another for each seed."""
    random = np.random.default_rng(seed)
    given: dict[str, Any] = {"seed": seed}
    if synthesizer.has_pose and seed % 2:
        given["pose"] = random.normal(0, 1, (1 + seed, 8)).astype(np.float32)
    if synthesizer.has_identity and seed % 3:
        given["reference"] = random.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    return given


Turns = list[list[tuple[int, int]]]  # who is fed how many samples before each common advance


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=12, deadline=None)
@given(
    turns=st.lists(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4_000)), max_size=4), max_size=6
    ),
    most=st.sampled_from([None, 1, 2]),
)
def test_a_stream_does_not_see_who_else_is_in_the_batch(
    synthesizer: Callable[[str], Synthesizer], kind: str, turns: Turns, most: int | None
) -> None:
    speaker = synthesizer(kind)
    said = [random_speech(seed) for seed in range(4)]
    streams = [speaker.stream(**options(speaker, seed)) for seed in range(4)]
    made: list[list[np.ndarray]] = [[] for _ in streams]
    at = [0] * 4
    for turn in turns:
        for who, samples in turn:
            streams[who].feed(said[who][at[who] : at[who] + samples])
            at[who] = min(at[who] + samples, SAMPLES)
        for parts, frames in zip(made, advance(streams, most), strict=True):
            parts.append(frames)
    for who, stream in enumerate(streams):
        stream.feed(said[who][at[who] :])
        stream.end()
    while any(stream.ready for stream in streams):
        for parts, frames in zip(made, advance(streams, most), strict=True):
            parts.append(frames)
    for seed, parts in enumerate(made):
        alone = speaker.speak(said[seed], **options(speaker, seed))
        together = np.concatenate(parts)
        assert together.shape == alone.shape == (15, 32, 32, 3)
        assert abs(together.astype(int) - alone).max() <= 1


def test_streams_of_another_seed_pose_or_person_differ(
    synthesizer: Callable[[str], Synthesizer],
) -> None:
    """Otherwise the test above could not tell a mix-up of two streams."""
    speaker = synthesizer("identity")
    said = random_speech(0)
    plain = speaker.speak(said).astype(int)
    person = np.zeros((32, 32, 3), np.uint8)
    others: list[dict[str, Any]] = [{"seed": 1}, {"pose": np.ones((1, 8))}, {"reference": person}]
    for other in others:
        assert abs(speaker.speak(said, **other) - plain).max() > 3
    later = speaker.speak(said[1600:])  # the same seed and other speech: another state
    assert abs(later.astype(int)[3:] - plain[3:12]).max() > 3


def test_feeding_computes_nothing_and_ready_counts(
    synthesizer: Callable[[str], Synthesizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = synthesizer("gru").stream()
    monkeypatch.setattr(stream.face, "speak", None)  # would fail if it were called
    said = random_speech(0)
    for samples, ready in [(3199, 0), (1, 1), (1599, 1), (1, 2), (0, 2)]:
        stream.feed(said[:samples])
        assert stream.ready == ready
    stream.end()
    stream.end()  # a second end adds no silence
    assert stream.ready == 3
    with pytest.raises(ValueError, match="has ended"):
        stream.feed(said)


def test_forwards_are_shared(
    synthesizer: Callable[[str], Synthesizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    speaker = synthesizer("gru")
    streams = [speaker.stream(seed) for seed in range(BLOCK + 8)]
    shapes: list[tuple[int, ...]] = []
    speak = streams[0].face.speak

    def spy(audio: torch.Tensor, *rest: Any) -> torch.Tensor:
        shapes.append(tuple(audio.shape[:2]))
        return speak(audio, *rest)

    monkeypatch.setattr(streams[0].face, "speak", spy)
    for number, stream in enumerate(streams[:9]):
        stream.feed(random_speech(number, 4_800 if number else 1_600 * (BLOCK + 5)))
    advance(streams[:8])
    assert shapes == [(8, 2), (1, BLOCK), (1, 2)]  # all that all have, then the rest of the longest
    shapes.clear()
    for stream in streams[8:]:
        stream.feed(random_speech(0, 3_200))
    advance(streams, most=1)
    assert shapes == [(BLOCK, 1)]
    assert streams[8].ready == 3 and streams[9].ready == 0
    assert advance([]) == [] and advance(streams[:1])[0].shape == (0, 32, 32, 3)


def test_a_stream_that_fails_or_vanishes_harms_nobody(
    synthesizer: Callable[[str], Synthesizer],
) -> None:
    speaker = synthesizer("gru")
    said = random_speech(0)
    streams = [speaker.stream(seed) for seed in range(3)]
    for stream in streams:
        stream.feed(said)
    parts = [advance(streams, most=1)[0]]
    for bad in (np.full(100, np.nan), np.full(100, np.inf), np.zeros((2, 100))):
        with pytest.raises(SourceError, match="finite samples"):
            streams[1].feed(bad)
    del streams[1]  # it vanishes with groups ready
    streams.append(speaker.stream(9))  # and another comes
    streams[-1].feed(said)
    for stream in streams:
        stream.end()
    parts.append(advance(streams)[0])
    assert abs(np.concatenate(parts).astype(int) - speaker.speak(said, seed=0)).max() <= 1


def test_what_does_not_fit_is_refused(synthesizer: Callable[[str], Synthesizer]) -> None:
    gru, paper = synthesizer("gru"), synthesizer("paper")
    stream: Stream = gru.stream()
    with pytest.raises(ValueError, match="one synthesizer"):
        advance([stream, paper.stream()])
    with pytest.raises(ValueError, match="once"):
        advance([stream, stream])
    for pose in (np.zeros((0, 8)), np.zeros((4, 7)), np.zeros(8), np.full((2, 8), np.nan)):
        with pytest.raises(ConfigError, match=r"shape \(frames, 8\)"):
            gru.stream(pose=pose)
