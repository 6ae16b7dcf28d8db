"""What an evaluation costs: CPU seconds for 1,000 frames of one model's row, all metrics.

python bench/evaluation.py

On one thread, with the default model at 64x64 and random weights. The real frames are a photograph
that sways, so nothing has to be extracted. ``share_NAME`` is what the metric costs alone, over the
whole: what several metrics read from the frames counts for each, so shares add up to more than 1.
LPIPS counts where its weights are on this machine; metrics on a user's network never do.
"""

import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
from _report import Target, report

from s2vgan.artifact import LoadedModel
from s2vgan.config import Config
from s2vgan.metrics import (
    METRICS,
    Instruments,
    MouthComponents,
    Stretch,
    SyncMeter,
    estimate,
    find_trunk,
    load_lpips,
    measure,
)
from s2vgan.models import TalkingFace
from s2vgan.regions import UPPER
from s2vgan.spec import GroupSpec
from s2vgan.synthesis import Synthesizer

PIECES = 4  # of 10 s, as in an evaluation
PIECE_FRAMES = 300
BLOCK_FRAMES = 90
CANDIDATES = 9  # other seconds, among which retrieval looks for the right one


def swaying(random: np.random.Generator, frames: int, size: int) -> np.ndarray:
    """Frames (frames, size, size, 3) uint8 of a photographed face that sways and flickers."""
    from skimage.data import astronaut

    face = astronaut()[60:190, 150:280]
    path = 4 * np.sin(np.arange(frames)[:, None] / np.array([11.0, 7.0]))
    moved = [
        cv2.warpAffine(face, np.array([[1, 0, x], [0, 1, y]]), face.shape[1::-1]) for x, y in path
    ]
    small = np.stack(
        [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in moved]
    )
    return (small + random.normal(0, 2, small.shape)).clip(0, 255).astype(np.uint8)


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of a piece of work."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    config, spec = Config(), GroupSpec()
    speaker = Synthesizer(LoadedModel(TalkingFace(config.model, spec).eval(), config, spec, {}))
    size = PIECE_FRAMES * spec.sample_rate // spec.fps
    pieces = [
        (
            swaying(random, PIECE_FRAMES, spec.size),
            random.normal(0, 0.1, size).astype(np.float32),
        )
        for _ in range(PIECES)
    ]
    others = [random.normal(0, 0.1, spec.sample_rate).astype(np.float32) for _ in range(CANDIDATES)]
    trunk = find_trunk()
    if trunk is None:
        print("LPIPS is left out: set S2VGAN_LPIPS_TRUNK to AlexNet's weights.")
    instruments = Instruments(
        lpips=load_lpips(trunk) if trunk else None,
        components=MouthComponents.fit(np.concatenate([real for real, _ in pieces])),
        sync=SyncMeter.fit(pieces, spec),
        upper_sync=SyncMeter.fit(pieces, spec, UPPER),
    )

    def hold(made: np.ndarray, real: np.ndarray, said: np.ndarray) -> Stretch:
        return Stretch(made, real, spec.frames_per_group, said, others=others)

    def stretches() -> list[Stretch]:
        return [hold(speaker.speak(said)[: len(real)], real, said) for real, said in pieces]

    def row() -> None:
        blocks: dict[str, list[np.ndarray]] = {}
        for stretch in stretches():
            for name, terms in measure(stretch, instruments).items():
                parts = np.array_split(terms, PIECE_FRAMES // BLOCK_FRAMES + 1)
                blocks.setdefault(name, []).extend(part.sum(axis=0) for part in parts)
        for name, sums in blocks.items():
            estimate(name, np.stack(sums))

    stretch = stretches()[0]
    measured = list(measure(stretch, instruments))  # and everything is warm
    whole = cpu(row) / PIECES
    figures = {"seconds_per_1000_frames": whole * 1000 / PIECE_FRAMES}
    figures["share_synthesis"] = cpu(lambda: speaker.speak(pieces[0][1])) / whole
    for name in (name for name in METRICS if name in measured):
        fresh = hold(stretch.generated, stretch.real, stretch.speech)
        alone = cpu(partial(measure, fresh, instruments, [name]))
        figures[f"share_{name}"] = alone / whole
    report("evaluation", figures, {"seconds_per_1000_frames": Target(90)})


if __name__ == "__main__":
    main()
