"""How fast a face speaks on one thread, with the default model at 64x64 and random weights.

python bench/synthesis.py

Three things take turns in one run, so that a busy machine disturbs all alike:

- ``rtf``: CPU seconds per second of video, groups one after another as they come in a live stream,
  audio features included;
- ``rtf_file``: the same for a whole file, in blocks of groups;
- ``encode_share``: CPU seconds of encoding the file's MP4 over those of its synthesis.
"""

import statistics
import time

import numpy as np
import torch
from _report import report

from s2vgan.artifact import LoadedModel
from s2vgan.config import Config
from s2vgan.media import encode_fragmented
from s2vgan.models import TalkingFace
from s2vgan.spec import GroupSpec
from s2vgan.synthesis import Synthesizer

SECONDS = 10
ROUNDS = 5


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config, spec = Config(), GroupSpec()
    face = TalkingFace(config.model, spec).eval()
    synthesizer = Synthesizer(LoadedModel(face, config, spec, {}))
    speech = np.random.default_rng(0).normal(0, 0.1, SECONDS * spec.sample_rate)
    speech = speech.astype(np.float32)
    live, whole, encoding = [], [], []
    for _ in range(ROUNDS):
        started = time.process_time()
        stream = synthesizer.stream()
        for start in range(0, len(speech), spec.samples_per_group):
            stream.push(speech[start : start + spec.samples_per_group])
        stream.finish()
        live.append(time.process_time() - started)

        started = time.process_time()
        frames = synthesizer.speak(speech)
        whole.append(time.process_time() - started)

        started = time.process_time()
        for _ in encode_fragmented(frames, spec.fps, speech, spec.sample_rate):
            pass
        encoding.append(time.process_time() - started)
    figures = {
        "rtf": statistics.median(live) / SECONDS,
        "rtf_file": statistics.median(whole) / SECONDS,
        "encode_share": statistics.median(encoding) / statistics.median(whole),
    }
    for name, value in figures.items():
        print(f"{name:14} {value:.4f}")
    report("synthesis", figures)


if __name__ == "__main__":
    main()
