"""The videos of the extraction's bench: real clips where they are, else the rendered talking head.

The real clips (the folder that S2VGAN_CLIPS names, or ``shared/clips`` beside the repository) are
one long video, ``grid_s1_5min.mp4``, short ones in ``grid_s1`` and odd ones in ``edge``.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np

from s2vgan import demo, media

CLIPS: Final = Path(__file__).resolve().parents[2] / "shared" / "clips"
LONG: Final = "grid_s1_5min.mp4"
# Those of edge/ with a picture that OpenCV reads frame by frame as everyone else does.
EDGE: Final = (
    "face_gap_1s.mp4", "fps24_48k_stereo.mp4", "fps2997.mp4", "fps60.mp4", "mpeg4_mp3.avi",
    "noface.mp4", "rotate_meta.mp4", "twofaces.mp4", "vfr.mp4", "vp8_opus.webm",
)  # fmt: skip
RATE: Final = 44_100  # of the sound of what is made here, as in the real clips
CRF: Final = 20
RENDERED_SECONDS: Final = 3  # of a short rendered clip, as in the real ones
FACELESS: Final = 0.3  # share of the sparse video's frames
STRETCHES: Final = 4  # without a face, in the sparse video


@dataclass(frozen=True)
class Clips:
    """What the bench runs on.

    Attributes:
        where: where they come from, for people.
        talk: one long video of a person who talks, at its native size.
        short: many short ones, at their native size.
        odd: videos with other rates, sizes, containers, without a face or with two.
        square: some of ``talk`` at 512x512.
        hd: some of ``talk`` at 1280x720.
        sparse: ``hd`` with FACELESS of its frames replaced by scenes without a face.
    """

    where: str
    talk: Path
    short: tuple[Path, ...]
    odd: tuple[Path, ...]
    square: Path
    hd: Path
    sparse: Path


def prepare(cache: Path, seconds: int, short: int) -> Clips:
    """Find or make the videos.

    Args:
        cache: folder for what is made; what lies there from another time is used again.
        seconds: length of the enlarged videos.
        short: number of short videos.
    """
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(os.environ.get("S2VGAN_CLIPS", CLIPS))
    if (folder / LONG).is_file():
        where, talk = str(folder), folder / LONG
        some = tuple(sorted((folder / "grid_s1").glob("*.mpg"))[:short])
        odd = tuple(path for name in EDGE if (path := folder / "edge" / name).is_file())
    else:
        where = "the rendered talking head"
        print(
            f"{folder}: no real clips here (S2VGAN_CLIPS names their folder); {where} stands in: "
            "compare the figures with others of it only.",
            file=sys.stderr,
        )
        talk, odd = _rendered(cache / "talk.mp4", max(30, seconds)), ()
        some = tuple(
            _rendered(cache / f"short_{number}.mp4", RENDERED_SECONDS, seed=number)
            for number in range(short)
        )
    name = f"{talk.stem}_{seconds}s"
    enlarged = {"square": (512, 512), "hd": (1280, 720), "sparse": (1280, 720)}
    made = {kind: cache / f"{name}_{kind}.mp4" for kind in enlarged}
    for kind, (width, height) in enlarged.items():
        if not made[kind].is_file():
            frames = _sparse(talk, odd, seconds) if kind == "sparse" else _frames(talk, seconds)
            _write(made[kind], talk, frames, width, height, seconds)
    return Clips(where, talk, some, odd, **made)


def _rendered(path: Path, seconds: int, seed: int = 0) -> Path:
    return path if path.is_file() else demo.render(path, seconds=seconds, seed=seed).video


def _rate(path: Path) -> int:
    return round(media.probe(path).fps)


def _frames(path: Path, seconds: int) -> Iterator[np.ndarray]:
    """The first frames of a video as RGB."""
    with av.open(str(path)) as container:
        count = seconds * _rate(path)
        for number, frame in enumerate(container.decode(video=0)):
            if number == count:
                return
            yield frame.to_ndarray(format="rgb24")


def _sparse(talk: Path, odd: tuple[Path, ...], seconds: int) -> Iterator[np.ndarray]:
    """The long video, the end of each stretch without a face: by turns the speaker's shoulders,
    and the test pattern of noface.mp4.
    """
    pattern = next((path for path in odd if path.stem == "noface"), None)
    others = _frames(pattern, seconds) if pattern else iter(())
    length = seconds * _rate(talk) / STRETCHES
    for number, frame in enumerate(_frames(talk, seconds)):
        stretch, place = divmod(number, length)
        if place < length * (1 - FACELESS):
            yield frame
            continue
        height, width = frame.shape[:2]
        shoulders = cv2.resize(frame[height * 2 // 3 :], (width, height))
        yield next(others, shoulders) if stretch % 2 else shoulders


def _write(
    path: Path, talk: Path, frames: Iterator[np.ndarray], width: int, height: int, seconds: int
) -> None:
    sound = media.read_audio(talk, RATE)[: seconds * RATE]
    fitted = (_fit(frame, width, height) for frame in frames)
    media.write_video(path, fitted, _rate(talk), sound, RATE, codecs=media.h264(CRF, "medium"))


def _fit(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Enlarge to a height; what is too wide is cut off, what is too narrow gets black sides."""
    wide = round(frame.shape[1] * height / frame.shape[0])
    large = cv2.resize(frame, (wide, height), interpolation=cv2.INTER_CUBIC)
    if wide >= width:
        left = (wide - width) // 2
        return large[:, left : left + width]
    left = (width - wide) // 2
    return cv2.copyMakeBorder(large, 0, 0, left, width - wide - left, cv2.BORDER_CONSTANT)
