"""Dubbing: the pose of the head over time, read from a video of the person."""

import math
import tempfile
from pathlib import Path

import numpy as np

from s2vgan import extraction, groups, source, spans
from s2vgan.errors import ConfigError, SandboxError, SourceError
from s2vgan.known import Options
from s2vgan.sandbox import Sandbox
from s2vgan.source import Source
from s2vgan.synthesis import Synthesizer


def read_pose(
    synthesizer: Synthesizer,
    video: str | Path,
    seconds: float | None = None,
    reference: np.ndarray | None = None,
) -> np.ndarray:
    """Pose codes of a driving video, a row for each frame to generate, from its start on.

    The video is extracted by the model's spec as a dataset's videos are, in a child process with
    limits, into a folder that is removed. Between two frames with a face the pose is interpolated;
    before the first and after the last it is held.

    Args:
        synthesizer: of a model that takes a pose code.
        video: path or URL (``s3://``) of a video with a face and with sound.
        seconds: of the video that are needed; None for all of it.
        reference: as in :meth:`Synthesizer.pose_of`.

    Returns:
        (frames, pose_dim) float32. At least ``seconds`` of them if the video is as long.

    Raises:
        ConfigError: if the model takes no pose code.
        SourceError: if the video is missing, cannot be read, or shows no face.
    """
    if not synthesizer.has_pose:
        raise ConfigError(
            "the model takes no pose (its model.pose_dim is 0): leave --pose out, or train a model "
            "with a pose code."
        )
    spec = synthesizer.spec
    with (
        source.local(str(video)) as file,
        tempfile.TemporaryDirectory(prefix="s2vgan-") as data,
        Sandbox() as child,
    ):
        try:
            found = child.call("s2vgan.spans:inspect", str(file.absolute()))
        except SandboxError as error:
            raise SourceError(f"{video}: its decoder {error}") from error
        start, end = max(0.0, found["start"]), None
        if seconds is not None:  # whole blocks, since the crops of a block are planned together
            block = spans.block_ticks(spec) / spec.fps
            end = math.ceil((start + seconds) / block) * block
        part = Source(str(file.absolute()), end=end)
        row = extraction.extract_video(part, data, Options(spec), child.call)
        if row.status != "ok":
            raise SourceError(
                f"{video}: no pose can be read from it ({row.reason.rstrip('.')}); give a video of "
                "the person, seen from the front."
            )
        known, codes = [], []
        for chunk in groups.read_chunks(data, row.video_id):
            known.append(chunk.index)
            frames = chunk.frames.reshape(-1, *spec.frame_shape[1:])
            codes.append(synthesizer.pose_of(frames, reference))
    ticks = np.concatenate(known)[:, None] * spec.frames_per_group
    ticks = (ticks + np.arange(spec.frames_per_group)).ravel()
    first = math.floor(round(start / spec.seconds, 6)) * spec.frames_per_group
    wanted = np.arange(first, row.timeline[-1][1] * spec.frames_per_group)
    columns = np.concatenate(codes).T
    return np.stack([np.interp(wanted, ticks, code) for code in columns], 1).astype(np.float32)
