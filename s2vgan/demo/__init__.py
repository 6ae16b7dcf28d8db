"""The demo's talking head: a video whose every mouth opening is known.

A real face (a photograph in the public domain) says sentences that espeak-ng speaks. It is the
offline default of `make demo`, and the project's test instrument::

    render(Path("talk.mp4"), seconds=120)   # talk.mp4 and talk.openings.parquet
"""

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from s2vgan import media
from s2vgan.demo.face import Face, Pose
from s2vgan.demo.motion import blinks, sway
from s2vgan.demo.persons import PERSONS
from s2vgan.demo.speech import (
    SAMPLE_RATE,
    SENTENCES,
    SPEAKERS,
    UNHEARD,
    Sound,
    Speaker,
    compose,
    synthesize_speech,
)
from s2vgan.demo.visemes import mouth_shapes
from s2vgan.errors import ConfigError

__all__ = [
    "FPS",
    "PERSONS",
    "SPEAKERS",
    "UNHEARD",
    "Rendered",
    "Sound",
    "Speaker",
    "openings_path",
    "read_openings",
    "render",
    "synthesize_speech",
]

FPS = 30


@dataclass(frozen=True)
class Rendered:
    """Files of one talking head.

    Attributes:
        video: the MP4.
        openings: the Parquet file with the true opening of the mouth in every frame.
    """

    video: Path
    openings: Path


def openings_path(video: str | Path) -> Path:
    """Where the true openings of a rendered video lie: beside it, ``<stem>.openings.parquet``."""
    return Path(video).with_suffix(".openings.parquet")


def render(
    out: str | Path,
    speaker: int = 0,
    seconds: float = 120,
    seed: int = 0,
    size: int = 256,
    sentences: tuple[str, ...] = SENTENCES,
    person: int = 0,
) -> Rendered:
    """Render a talking head: H.264 at 30 frames/s, AAC at 16 kHz, and the mouth's true openings.

    The openings table has one row per frame: ``frame`` int32, ``time`` float64 in seconds,
    ``opening`` float32 in [0, 1], the distance of the lips as drawn. The same arguments give the
    same frames and sound. Both files are written whole or not at all.

    Args:
        out: path of the MP4.
        speaker: index into SPEAKERS.
        seconds: length of the video, at least 0.5.
        seed: 0 or more; of the order of sentences, pauses, sway and blinks.
        size: height and width in pixels; the face is about 0.45 of it.
        sentences: what may be said.
        person: index into PERSONS; whose face it is.

    Raises:
        ConfigError: if an argument is out of range.
        S2VError: if the packages of the extra `demo` are not installed.
    """
    if not 0.5 <= seconds <= 24 * 3600:
        raise ConfigError(f"seconds {seconds}: use 0.5 to 86400.")
    if seed < 0:
        raise ConfigError(f"seed {seed}: use 0 or more.")
    if not 0 <= speaker < len(SPEAKERS):
        raise ConfigError(f"speaker {speaker}: use 0 to {len(SPEAKERS) - 1}.")
    if not 0 <= person < len(PERSONS):
        raise ConfigError(f"person {person}: use 0 to {len(PERSONS) - 1}.")
    count = round(seconds * FPS)
    times = np.arange(count) / FPS
    speech_rng, motion_rng = np.random.default_rng([seed, speaker]).spawn(2)
    audio, sounds = compose(sentences, count / FPS, speaker, speech_rng)
    face = Face(size, SPEAKERS[speaker].tint, PERSONS[person])
    mouths = mouth_shapes(sounds, times)
    poses = np.column_stack([mouths, blinks(times, motion_rng), sway(times, motion_rng)])

    def frames() -> Iterator[np.ndarray]:
        name = f"rendering {Path(out).name}"
        for pose in tqdm(poses.tolist(), desc=name, unit="frame", mininterval=1):
            yield face.draw(Pose(*pose))

    rendered = Rendered(Path(out), openings_path(out))
    rendered.video.parent.mkdir(parents=True, exist_ok=True)
    temporary = rendered.openings.with_name(f".{rendered.openings.name}.{uuid.uuid4().hex}.tmp")
    try:
        columns = {
            "frame": pa.array(np.arange(count), pa.int32()),
            "time": pa.array(times, pa.float64()),
            "opening": pa.array(mouths[:, 0], pa.float32()),
        }
        pq.write_table(pa.table(columns), temporary)
        media.write_video(rendered.video, frames(), FPS, audio, SAMPLE_RATE)
        os.replace(temporary, rendered.openings)
    finally:
        temporary.unlink(missing_ok=True)
    return rendered


def read_openings(video: str | Path) -> np.ndarray:
    """True openings of a rendered video, (frames,) float32 in [0, 1]."""
    return pq.read_table(openings_path(video))["opening"].to_numpy()
