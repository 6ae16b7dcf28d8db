"""Sources and datasets in a store that speaks S3's protocol: moto's server, on this machine."""

import dataclasses
import json
import logging
import os
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest

from pipelines import extract, stages
from s2vgan import extraction, ledger, overview, storage
from s2vgan.dataset import GroupDataset
from s2vgan.errors import S2VError
from s2vgan.known import Known, Options
from s2vgan.source import Source
from s2vgan.spec import GroupSpec
from tests.conftest import MakeVideo
from tests.test_extraction import talk
from tests.test_media import impulse

server = pytest.importorskip("moto.server", reason="an S3 server needs moto (extra dev)")

OPTIONS = Options(GroupSpec(fps=10, size=32))


@dataclasses.dataclass(frozen=True)
class Bucket:
    """An empty bucket, and the part of a URL that says where its server is."""

    name: str
    tail: str

    def url(self, path: str = "") -> str:
        return f"s3://{self.name}/{path}{self.tail}"

    def files(self) -> dict[str, bytes]:
        """Everything in it: folders have no content and are left out."""
        filesystem, root = storage.open_url(self.url())
        infos = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
        keys = [info.path for info in infos if info.type == pafs.FileType.File]
        return {
            key.removeprefix(f"{self.name}/"): filesystem.open_input_stream(key).read()
            for key in keys
        }


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Host and port of the server; keys come from the environment, as for real S3."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key-of-the-test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        stages.child().close()  # one that another test has started does not know them
        host, port = running.get_host_and_port()
        yield f"{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(endpoint: str, request: pytest.FixtureRequest) -> Bucket:
    name = request.node.name.replace("_", "-").strip("-")[:60]
    request_ = urllib.request.Request(f"http://{endpoint}/{name}", method="PUT")
    with urllib.request.urlopen(request_):
        return Bucket(name, f"?endpoint_override={endpoint}&scheme=http")


def put(bucket: Bucket, path: str, content: bytes) -> None:
    folder, _, name = path.rpartition("/")
    storage.write(bucket.url(folder), name, content)


def test_files_come_and_go(bucket: Bucket) -> None:
    data = bucket.url("data")
    assert not storage.exists(data, "in/a.json") and storage.size(data, "in/a.json") == 0
    assert list(storage.names(data, "in", ".json")) == []
    for name, content in (("in/b.json", b"1"), ("in/a.json", b"12"), ("in/c.txt", b"x")):
        storage.write(data, name, content)
    storage.write(data, "in/b.json", b"123")
    assert list(storage.names(data, "in", ".json")) == ["a.json", "b.json"]
    assert storage.read(data, "in/b.json") == b"123"
    assert storage.exists(data, "in/a.json") and storage.size(data, "in/a.json") == 2
    with pytest.raises(FileNotFoundError):
        storage.read(data, "in/none.json")
    for _ in range(2):
        storage.remove(data, "in/a.json")
        storage.remove(data, "none/a.json")
        assert set(bucket.files()) == {"data/in/b.json", "data/in/c.txt"}
    for _ in range(2):
        storage.remove_folder(data, "in")
        storage.remove_folder(data, "none")
        assert bucket.files() == {}


def test_a_write_that_ends_early_leaves_nothing(bucket: Bucket) -> None:
    data = bucket.url("data")
    storage.write(data, "a", b"old")
    large = bytes(12 << 20)  # more than one part of an upload
    for error in (ValueError, KeyboardInterrupt):
        for name in ("a", "b"):
            with pytest.raises(error), storage.replacing(data, name) as target:
                target.open().write(large)
                assert storage.size(data, name) in (0, 3)
                raise error
    assert bucket.files() == {"data/a": b"old"}
    with storage.replacing(data, "a") as target:
        target.open().write(large)
    assert bucket.files() == {"data/a": large}


def test_a_sweep_takes_what_is_older_than_a_day(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = f"data/groups/a.parquet.{'0' * 32}.tmp"
    put(bucket, left, b"half")
    put(bucket, "data/groups/b.parquet", b"whole")
    storage.sweep(bucket.url("data"), "groups", "none")
    assert set(bucket.files()) == {left, "data/groups/b.parquet"}
    tomorrow = time.time() + 25 * 3600
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    storage.sweep(bucket.url("data"), "groups", "none")
    assert set(bucket.files()) == {"data/groups/b.parquet"}


def test_from_s3_to_s3(
    bucket: Bucket, make_video: MakeVideo, face: np.ndarray, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The child process writes there as well; the same groups come out as from local files."""
    make_video("in/long.mp4", talk(face, [n / 4 for n in range(264)]), impulse(66.1, 0.5, 16000))
    make_video("in/short.mp4", talk(face, [n / 10 for n in range(15)]), impulse(1.6, 0.5, 16000))
    (tmp_path / "in" / "text.mp4").write_text("I am no video.\n")
    for path in (tmp_path / "in").iterdir():
        put(bucket, f"in/{path.name}", path.read_bytes())
    data, sources = bucket.url("data"), [bucket.url("in")]
    info = extract.run(sources, data, OPTIONS, workers=0, span_seconds=60)
    assert info.videos == {"ok": 2, "rejected": 1} and min(info.groups.values()) == 4
    assert info == extract.run([str(tmp_path / "in")], tmp_path / "data", OPTIONS, workers=0)
    first = {key: value for key, value in bucket.files().items() if key.startswith("data/")}
    for video_id in info.groups:
        local = (tmp_path / "data" / "groups" / f"{video_id}.parquet").read_bytes()
        assert first[f"data/groups/{video_id}.parquet"] == local
    names = {key.split("/")[1] for key in first}
    assert names == {"groups", "ledger", "dataset.json", "DATA_CARD.md"}
    secrets = (os.environ["AWS_SECRET_ACCESS_KEY"].encode(), b"key-of-the-test")
    assert not any(secret in content for content in first.values() for secret in secrets)

    capsys.readouterr()
    assert extract.run(sources, data, OPTIONS, workers=0, span_seconds=60) == info
    assert "3 of the videos were done or refused before" in capsys.readouterr().out
    assert first == {key: value for key, value in bucket.files().items() if key in first}

    loaded = GroupDataset.load(data)
    assert len(loaded) == sum(info.groups.values())
    overview.show(data)
    assert storage.exists(data, "contact_sheet.html")


def test_a_source_that_has_changed_is_found_by_its_time(
    bucket: Bucket, make_video: MakeVideo, face: np.ndarray
) -> None:
    video = make_video("a.mp4", talk(face, [0, 0.1, 0.2]), impulse(0.4, 0.1, 16000))
    put(bucket, "in/a.mp4", video.read_bytes())
    url, data = bucket.url("in/a.mp4"), bucket.url("data")
    row = extraction.extract_video(url, data, OPTIONS)
    assert row.modified > 0 and row.size == video.stat().st_size
    assert Known(data, OPTIONS).find(Source(url), url) == row
    time.sleep(1.1)  # the store keeps whole seconds
    put(bucket, "in/a.mp4", video.read_bytes())
    assert Known(data, OPTIONS).find(Source(url), url) is None


def test_keys_stay_out_of_everything(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_key = bucket.url("in/a.mp4").replace("s3://", "s3://key:hunter@")
    (tmp_path / "list.txt").write_text(f"{with_key}\n")
    (tmp_path / "times.txt").write_text(f"{with_key} 1-2\n")
    data = str(tmp_path / "data")
    for arguments in (
        [with_key, "--out", data],
        [str(tmp_path / "list.txt"), "--out", data],
        [str(tmp_path / "times.txt"), "--out", data],
        [bucket.url("in"), "--out", with_key],
    ):
        assert extract.main([*arguments, "--workers", "0"]) == 2
        said = "".join(capsys.readouterr())
        assert "a key or password in a URL" in said and "hunter" not in said
    assert not (tmp_path / "data").exists()
    with pytest.raises(S2VError):
        ledger.read_dataset(with_key)
    assert json.dumps(list(bucket.files())) == "[]"
