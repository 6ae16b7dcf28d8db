"""The watermark: found again after re-encoding, never found where it is not, and what it costs.

Generated clips of ``--seconds`` are marked, written as ``s2vgan speak`` does, and re-encoded at CRF
28 at their size, at half of it and at two sizes that are no simple part of it. Real clips, which
nobody marked, are cut into pieces and looked at with many wrong keys. The last line is one JSON
object:

- ``found``: share of generated clips in which it is found after re-encoding and scaling;
- ``weakest``: the smallest statistic among them; ``threshold``: above which it counts as found;
- ``false_alarms``, ``wrong``: number of them, among how many pairs of a real clip and a wrong key;
  ``false_alarm_bound``: upper 95 % bound of their share (Clopper and Pearson 1934);
- ``largest_wrong``: the largest statistic among them;
- ``psnr``, ``ssim``: of marked against unmarked frames without the label, the worst clip's;
- ``cost``: time to mark a frame at 256x256, with the label, in parts of encoding it.

    python bench/watermark.py --model runs/demo/run --speech speech/ --clips clips/
"""

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import torch
from _report import report

from s2vgan.errors import SourceError
from s2vgan.media import h264, read_audio, write_video
from s2vgan.metrics import ssim
from s2vgan.provenance import Marker, detect
from s2vgan.provenance.detector import (
    FALSE_ALARM,
    MIN_SECONDS,
    TRIALS,
    correlate,
    judge,
    read_cells,
    slot_sums,
)
from s2vgan.provenance.pattern import signs
from s2vgan.synthesis import Synthesizer, enlarge

KEY: Final = "the key of the bench"
SCALE: Final = 4  # as `s2vgan speak`
CRF: Final = 28
SIZES: Final = (1.0, 0.5, 0.7, 1.4)  # of the re-encoded clip, in parts of the marked one
PIECE: Final = 2.0  # seconds of a real clip


def clips(
    synthesizer: Synthesizer, folder: Path, seconds: float, count: int
) -> Iterator[list[np.ndarray]]:
    """Enlarged frames of generated clips, the driving speech cut where it was not cut before."""
    rate, made = synthesizer.spec.sample_rate, 0
    length = round(seconds * rate)
    speech = [read_audio(path, rate) for path in sorted(folder.glob("*.wav"))]
    for shift in range(4):
        for sound in speech:
            for start in range(shift * length // 4, len(sound) - length + 1, length):
                if made == count:
                    return
                frames = synthesizer.speak(sound[start : start + length], seed=made)
                made += 1
                yield list(enlarge(frames, SCALE))


def recode(source: Path, target: Path, scale: float, fps: int) -> None:
    """Decode a video, scale it and encode it at CRF."""
    with av.open(str(source)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    scaled = (cv2.resize(frame, None, fx=scale, fy=scale, interpolation=how) for frame in frames)
    write_video(target, scaled, fps, None, 16000, codecs=h264(CRF, "medium"))


def pieces(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Times and cells of pieces of real clips."""
    for path in sorted(folder.rglob("*.m*p*")):
        try:
            times, cells = read_cells(path)
        except SourceError as error:
            print(f"left out: {error}")
            continue
        for start in np.arange(times[0], times[-1] - MIN_SECONDS, PIECE):
            inside = (times >= start) & (times < start + PIECE)
            if inside.any() and np.ptp(times[inside]) >= MIN_SECONDS:
                yield times[inside], cells[inside]


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """Upper bound of a share of which ``events`` of ``trials`` were seen (one-sided, exact)."""
    low, high = events / trials, 1.0
    for _ in range(60):  # the share at which so few events have a probability of 1 - confidence
        share = (low + high) / 2
        tail = sum(
            math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(events + 1)
        )
        low, high = (share, high) if tail > 1 - confidence else (low, share)
    return high


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--speech", type=Path, required=True, help="folder of WAV files")
    parser.add_argument("--clips", type=Path, required=True, help="folder of real clips")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a generated clip")
    parser.add_argument("--count", type=int, default=60, help="of generated clips")
    parser.add_argument("--real", type=int, default=148, help="pieces of real clips")
    parser.add_argument("--keys", type=int, default=100, help="wrong keys")
    options = parser.parse_args()
    torch.set_num_threads(1)
    synthesizer = Synthesizer.load(options.model)
    fps = synthesizer.spec.fps
    statistics: list[float] = []
    psnr, likeness, marking, encoding = [], [], 0.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        marked, again = Path(folder) / "marked.mp4", Path(folder) / "again.mp4"
        for frames in clips(synthesizer, options.speech, options.seconds, options.count):
            plain = np.stack(list(Marker(KEY, label=False, fps=fps).mark(frames)))
            original = np.stack(frames)
            error = np.square(plain.astype(np.float32) - original).mean()
            psnr.append(10 * math.log10(255**2 / error))
            some = slice(0, None, 30)
            pair = [torch.from_numpy(part[some]).movedim(-1, 1).float() / 127.5 - 1
                    for part in (plain, original)]  # fmt: skip
            likeness.append(float(ssim(pair[0], pair[1]).mean()))
            marker = Marker(KEY, fps=fps)
            started = time.process_time()
            labelled = list(marker.mark(frames))
            marking += time.process_time() - started
            started = time.process_time()
            write_video(marked, labelled, fps, None, 16000)
            encoding += time.process_time() - started
            for scale in SIZES:
                recode(marked, again, scale, fps)
                statistics.append(detect(again, KEY).statistic)
    wrong = np.stack([signs(f"wrong key {number}") for number in range(options.keys)])
    chance: list[float] = []
    for number, (times, cells) in enumerate(pieces(options.clips)):
        if number == options.real:
            break
        chance.extend(correlate(slot_sums(times, cells), wrong))
    alarms = sum(judge(value, PIECE).found for value in chance)
    report(
        "watermark",
        {
            "clips": len(psnr),
            "found": float(np.mean([judge(value, options.seconds).found for value in statistics])),
            "weakest": min(statistics),
            "median": float(np.median(statistics)),
            "threshold": math.sqrt(2 * math.log(TRIALS / FALSE_ALARM)),
            "false_alarms": alarms,
            "wrong": len(chance),
            "false_alarm_bound": upper_bound(alarms, len(chance)),
            "largest_wrong": max(chance),
            "psnr": min(psnr),
            "ssim": min(likeness),
            "cost": marking / encoding,
        },
    )


if __name__ == "__main__":
    main()
