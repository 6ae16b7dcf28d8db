import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2vgan import groups, ledger
from s2vgan.errors import ConfigError, DatasetError
from s2vgan.groups import Group
from s2vgan.ledger import LedgerRow
from s2vgan.spec import GroupSpec
from tests.conftest import write_video

SPEC = GroupSpec(size=16)


def group(index: int, spec: GroupSpec = SPEC) -> Group:
    random = np.random.default_rng(index)
    return Group(
        segment=index // 4,
        index=index,
        frames=random.integers(0, 256, spec.frame_shape, dtype=np.uint8),
        audio=random.integers(-32768, 32768, spec.samples_per_group).astype(np.int16),
        boxes=random.integers(0, 500, (spec.frames_per_group, 4)).astype(np.int16),
    )


def row(video_id: str, count: int = 0, spec: GroupSpec = SPEC, **values: object) -> LedgerRow:
    base = LedgerRow(video_id, "ok", f"{video_id}.mp4", groups=count, spec=spec.to_dict())
    return dataclasses.replace(base, **values)  # type: ignore[arg-type]


def dataset(data: Path, ids: str = "ab", count: int = 3) -> ledger.DatasetInfo:
    for video_id in ids:
        write_video(data, video_id, map(group, range(count)), SPEC)
    return ledger.write_dataset(data, SPEC)


@pytest.mark.parametrize(("fps", "samples"), [(30, 1600), (25, 1920), (24, 2000), (60, 800)])
def test_samples_per_group(fps: int, samples: int) -> None:
    spec = GroupSpec(fps=fps)
    assert spec.samples_per_group == samples
    assert spec.seconds == pytest.approx(samples / 16000)


@pytest.mark.parametrize("values", [{"fps": 29}, {"fps": 0}, {"size": 8}, {"crop": "square"}])
def test_bad_spec_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        GroupSpec(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 5, 9])
def test_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(
        groups, "rows_per_chunk", lambda spec: 4
    )  # so that 5 and 9 rows need several chunks
    wanted = [group(index) for index in range(count)]
    assert groups.write_groups(tmp_path, "v", iter(wanted), SPEC).groups == count
    spec, table = groups.read_groups(tmp_path, "v")
    assert spec == SPEC
    assert set(table["video_id"].to_pylist()) == {"v"}
    assert table["index"].to_pylist() == list(range(count))
    assert table["segment"].to_pylist() == [g.segment for g in wanted]
    np.testing.assert_array_equal(groups.decode_frames(table, spec), [g.frames for g in wanted])
    np.testing.assert_array_equal(groups.decode_audio(table, spec), [g.audio for g in wanted])
    np.testing.assert_array_equal(table["boxes"].to_pylist(), [g.boxes.reshape(-1) for g in wanted])
    tail = table.slice(count // 2)
    np.testing.assert_array_equal(
        groups.decode_frames(tail, spec), [g.frames for g in wanted[count // 2 :]]
    )


def test_columns_are_the_contract(tmp_path: Path) -> None:
    groups.write_groups(tmp_path, "v", [group(0)], SPEC)
    found = pq.read_schema(tmp_path / "groups" / "v.parquet")
    assert {field.name: field.type for field in found} == {
        "video_id": pa.string(),
        "segment": pa.int32(),
        "index": pa.int32(),
        "frames": pa.binary(),
        "audio": pa.binary(),
        "boxes": pa.list_(pa.int16(), 12),
    }


def test_a_torn_write_leaves_what_was_there(tmp_path: Path) -> None:
    def torn() -> Iterator[Group]:
        yield from map(group, range(600))
        raise RuntimeError("killed")

    groups.write_groups(tmp_path, "v", [group(7)], SPEC)
    with pytest.raises(RuntimeError):
        groups.write_groups(tmp_path, "v", torn(), SPEC)
    assert [item.name for item in (tmp_path / "groups").iterdir()] == ["v.parquet"]
    assert groups.read_groups(tmp_path, "v")[1]["index"].to_pylist() == [7]


def test_no_group_leaves_no_file(tmp_path: Path) -> None:
    groups.write_groups(tmp_path, "v", [group(0)], SPEC)
    assert groups.size_of(tmp_path, "v") > 0
    assert groups.write_groups(tmp_path, "v", [], SPEC) == groups.Written(0)
    assert groups.size_of(tmp_path, "v") == 0 and not list((tmp_path / "groups").iterdir())


def test_a_group_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frames"):
        groups.write_groups(tmp_path, "v", [group(0, GroupSpec(size=32))], SPEC)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"v\.parquet"):
        groups.read_groups(tmp_path, "v")
    groups.write_groups(tmp_path, "v", [group(0)], SPEC)
    path = tmp_path / "groups" / "v.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"v\.parquet"):
        groups.read_groups(tmp_path, "v")
    pq.write_table(pa.table({"frames": [b"x"]}), path)
    with pytest.raises(DatasetError, match="not a groups file"):
        groups.read_groups(tmp_path, "v")


def test_ledger_round_trip_and_remove(tmp_path: Path) -> None:
    wanted = row("b", 3, dropped={"no_face": 2}, timeline=((0, 2, "no_face"), (2, 5, "kept")))
    ledger.write_row(tmp_path, row("c"))
    ledger.write_row(tmp_path, wanted)
    assert list(ledger.read_rows(tmp_path)) == ["b", "c"]
    assert ledger.read_row(tmp_path, "b") == wanted
    ledger.remove(tmp_path, "b")
    ledger.remove(tmp_path, "never was")
    assert ledger.read_row(tmp_path, "b") is None
    (tmp_path / "ledger" / "c.json").write_text("{")
    with pytest.raises(DatasetError, match=r"c\.json"):
        ledger.read_rows(tmp_path)


def test_dataset_identity(tmp_path: Path) -> None:
    info = dataset(tmp_path / "one")
    assert info == ledger.read_dataset(tmp_path / "one")
    assert info.groups == {"a": 3, "b": 3} and info.videos == {"ok": 2}
    assert dataset(tmp_path / "two") == info
    before = ledger.read_rows(tmp_path / "two")["a"]
    ledger.write_row(tmp_path / "two", dataclasses.replace(before, cpu_seconds=9, source="there"))
    assert ledger.write_dataset(tmp_path / "two", SPEC) == info
    assert dataset(tmp_path / "three", count=4).sha256 != info.sha256


def test_only_videos_that_are_ok_count(tmp_path: Path) -> None:
    info = dataset(tmp_path)
    ledger.write_row(tmp_path, row("b", status="failed"))
    changed = ledger.write_dataset(tmp_path, SPEC)
    assert changed.groups == {"a": 3} and changed.videos == {"failed": 1, "ok": 1}
    assert changed.sha256 != info.sha256


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_groups_that_are_gone_or_torn_are_named(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    dataset(tmp_path)
    damage(tmp_path / "groups" / "a.parquet")
    with pytest.raises(DatasetError, match=r"extract it again, or delete ledger/a\.json"):
        ledger.write_dataset(tmp_path, SPEC)


def test_specs_are_not_mixed(tmp_path: Path) -> None:
    dataset(tmp_path)
    ledger.write_row(tmp_path, row("c", spec=GroupSpec(size=32)))
    with pytest.raises(DatasetError, match=r"c\.mp4"):
        ledger.write_dataset(tmp_path, SPEC)


def test_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"extract\.py"):
        ledger.read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    with pytest.raises(DatasetError, match="damaged"):
        ledger.read_dataset(tmp_path)
    with pytest.raises(DatasetError, match="xyz"):
        ledger.read_dataset("xyz://bucket/data")


def test_urls_are_datasets_too(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/data"
    written = groups.write_groups(url, "a", [group(0)], SPEC)
    row_ = row("a", 1, groups_sha256=written.sha256, groups_size=written.size)
    ledger.write_row(url, row_)
    assert ledger.write_dataset(url, SPEC) == ledger.read_dataset(tmp_path / "data")


def test_the_hash_is_that_of_the_file(tmp_path: Path) -> None:
    written = groups.write_groups(tmp_path, "v", map(group, range(5)), SPEC)
    content = (tmp_path / "groups" / "v.parquet").read_bytes()
    assert written == groups.Written(5, hashlib.sha256(content).hexdigest(), len(content))


def test_groups_can_be_read_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "rows_per_chunk", lambda spec: 2)
    groups.write_groups(tmp_path, "v", map(group, range(5)), SPEC, file="parts/v/0.parquet")
    found = list(groups.iterate_groups(tmp_path, "parts/v/0.parquet", SPEC))
    again = groups.write_groups(tmp_path, "v", found, SPEC)
    assert again.sha256 == groups.write_groups(tmp_path, "v", map(group, range(5)), SPEC).sha256
    assert [item.index for item in found] == [0, 1, 2, 3, 4]
    with pytest.raises(DatasetError, match="none.parquet"):
        next(groups.iterate_groups(tmp_path, "none.parquet", SPEC))
