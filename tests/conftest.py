"""Fixtures that tests share: real clips, a rendered talking head, videos made to measure."""

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from s2vgan import cluster, demo, extraction, groups, ledger
from s2vgan.demo import Rendered
from s2vgan.groups import Group
from s2vgan.known import Options
from s2vgan.ledger import LedgerRow
from s2vgan.spec import GroupSpec

# Small networks on busy cores: a second thread costs more than it brings, up to 20 times.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"
MakeVideo = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test talks to a tracking server or a Ray cluster of the user's, or fills their cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("mlflow")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("S2VGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("RAY_ADDRESS", raising=False)
        # A job that a shell runs in the background ignores Ctrl-C, and so would what tests start.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield


def _existing(variable: str, default: Path, what: str) -> Path:
    path = Path(os.environ.get(variable, default))
    if not path.exists():
        pytest.skip(f"{what} not found at {path}; set {variable}")
    return path


@pytest.fixture(scope="session")
def clips() -> Path:
    """Folder of real clips."""
    return _existing("S2VGAN_CLIPS", SHARED / "clips", "real clips")


@pytest.fixture(scope="session")
def lpips_trunk() -> Path:
    """Weights of LPIPS's AlexNet trunk."""
    default = SHARED / "weights" / "alexnet_features.safetensors"
    return _existing("S2VGAN_LPIPS_TRUNK", default, "the AlexNet trunk of LPIPS")


@pytest.fixture(scope="session")
def ray_cluster(environment: None) -> Iterator[None]:
    """One local Ray for the whole session."""
    import ray

    cluster.connect()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def talking_head(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """20 s of a rendered talking head, and its true mouth openings."""
    return demo.render(tmp_path_factory.mktemp("head") / "head.mp4", seconds=20)


@pytest.fixture(scope="session")
def demo_data(talking_head: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset extracted from :func:`talking_head`."""
    data = tmp_path_factory.mktemp("demo") / "data"
    row = extraction.extract_video(str(talking_head.video), data, Options())
    assert row.status == "ok", row.reason
    ledger.write_dataset(data, GroupSpec())
    return data


@pytest.fixture(scope="session")
def face() -> np.ndarray:
    """A photograph with one face, (256, 256, 3) uint8 RGB; Haar finds it near (88, 33, 48, 48)."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[::2, ::2])


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Writes a video whose frames are shown, and whose samples are heard, at given times."""

    def make(
        name: str,
        frames: Sequence[tuple[float, np.ndarray]],
        audio: np.ndarray | None = None,
        sample_rate: int = 16000,
        *,
        audio_start: float = 0.0,
        codec: str = "libx264",
        audio_codec: str = "pcm_s16le",
        pix_fmt: str = "yuv420p",
        matrix: int = 6,
        color_range: int = 1,
        layout: str = "mono",
        fps: int | Fraction = 30,
        options: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        clock = Fraction(1, 90_000)
        if path.suffix == ".avi" or codec.startswith("mpeg"):  # these know no times in between
            clock = 1 / Fraction(fps)
        with av.open(str(path), "w") as output:
            video: Any = output.add_stream(codec, rate=fps)
            video.height, video.width = frames[0][1].shape[:2]
            video.pix_fmt, video.time_base = pix_fmt, clock
            video.codec_context.time_base = clock
            video.codec_context.colorspace = matrix
            video.codec_context.color_range = color_range
            if codec == "libx264":
                video.options = {"crf": "10", "preset": "ultrafast"} | (options or {})
            else:
                video.bit_rate, video.options = 4_000_000, options or {}
            sound: Any = None
            if audio is not None:
                sound = output.add_stream(audio_codec, rate=sample_rate, layout=layout)
            frame: Any
            for time, pixels in frames:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                    format=pix_fmt,
                    dst_colorspace={1: "ITU709", 6: "ITU601"}[matrix],
                    dst_color_range=color_range,
                )
                frame.pts, frame.time_base = round(time / clock), clock
                output.mux(video.encode(frame))
            output.mux(video.encode(None))
            if sound is not None and audio is not None:
                channels = av.AudioLayout(layout).nb_channels
                pcm = np.rint(np.clip(audio, -1, 1) * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(
                    np.repeat(pcm, channels)[None], format="s16", layout=layout
                )
                frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
                frame.pts = round(audio_start * sample_rate)
                convert = av.AudioResampler(sound.format.name, layout, sample_rate)
                for part in convert.resample(frame):
                    output.mux(sound.encode(part))
                output.mux(sound.encode(None))
        return path

    return make


def write_video(
    data: Path, video_id: str, rows: Iterable[Group], spec: GroupSpec, **fields: Any
) -> LedgerRow:
    """Put a video into a dataset: its groups file, and the ledger row that belongs to it."""
    written = groups.write_groups(data, video_id, rows, spec)
    values: dict[str, Any] = {
        "source": "made up",
        "groups": written.groups,
        "groups_sha256": written.sha256,
    }
    values |= {"groups_size": written.size, "spec": spec.to_dict()}
    row = LedgerRow(video_id=video_id, status="ok", **(values | fields))
    ledger.write_row(data, row)
    return row


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 2 x 60 groups, 32 pixels: a grey face whose mouth is as dark as it is loud."""
    data, spec = tmp_path_factory.mktemp("toy") / "data", GroupSpec(size=32)
    random = np.random.default_rng(0)
    for number in range(2):
        rows = []
        for index in range(60):
            loudness = random.uniform(0, 1, 3).repeat([533, 533, 534])
            frames = np.full(spec.frame_shape, 180, np.uint8)
            frames[:, 8:12, 6:26] = 60 + random.integers(0, 60)  # brows, which speech leaves alone
            for frame, level in enumerate(loudness[[0, 600, 1200]]):
                frames[frame, 22:27, 10:22] = round(180 - 150 * level)
            audio = (loudness * random.normal(0, 6000, 1600)).clip(-32768, 32767)
            rows.append(
                groups.Group(0, index, frames, audio.astype(np.int16), np.zeros((3, 4), np.int16))
            )
        write_video(data, f"video{number}", rows, spec)
    ledger.write_dataset(data, spec)
    return data


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that holds a small model of random weights, 32 pixels."""
    import torch

    from s2vgan import artifact
    from s2vgan.config import Config, ModelConfig
    from s2vgan.models import TalkingFace
    from tests.lively import liven

    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    config = Config(model=ModelConfig(width=4))
    artifact.save(
        folder / artifact.FOLDER,
        liven(TalkingFace(config.model, GroupSpec(size=32))),
        config,
        name="small",
        dataset="d" * 64,
        step=7,
        readings={"val/score": 0.5},
    )
    return folder
