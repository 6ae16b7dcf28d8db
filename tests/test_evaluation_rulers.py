"""The ruler of mouths: calibrated where truth is known, and luma elsewhere."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError
from s2vgan.evaluation import evaluate
from s2vgan.openings import make_ruler
from tests.test_evaluation import write_talking


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("talking")
    write_talking(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(data: Path) -> GroupDataset:
    return GroupDataset.load(data)


def test_the_ruler_is_calibrated_where_truth_is_known(
    data: Path, dataset: GroupDataset, tmp_path: Path
) -> None:
    training, held_out = dataset.split(0.15)
    ruler = make_ruler(dataset, data, None, training, held_out)
    assert ruler.calibrated and ruler.r_truth is not None and ruler.r_truth > 0.95
    assert f"{ruler.r_truth:.3f}" in ruler.sentence
    given = make_ruler(dataset, data, data / "video0.openings.parquet", training, held_out)
    assert given.r_truth == ruler.r_truth
    assert make_ruler(dataset, data, data, training, held_out).r_truth == ruler.r_truth
    with pytest.raises(DatasetError, match="no such file"):
        make_ruler(dataset, data, tmp_path / "none.parquet", training, held_out)
    with pytest.raises(DatasetError, match="no true openings"):
        make_ruler(dataset, data, tmp_path, training, held_out)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(DatasetError, match="columns time and opening"):
        make_ruler(dataset, data, tmp_path / "text.parquet", training, held_out)


def test_truth_of_another_video_is_not_believed(
    data: Path, dataset: GroupDataset, tmp_path: Path
) -> None:
    table = pq.read_table(data / "video0.openings.parquet").to_pydict()
    table["opening"] = np.roll(table["opening"], 100)
    pq.write_table(pa.table(table), tmp_path / "wrong.parquet")
    ruler = make_ruler(dataset, data, tmp_path / "wrong.parquet", *dataset.split(0.15))
    assert not ruler.calibrated and "do not fit" in ruler.sentence


def test_truth_that_stands_still_on_held_out_time_cannot_check_the_ruler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2vgan.rulers.find_trunk", lambda trunk: None)
    dataset = write_talking(tmp_path / "data", (20,))
    path = tmp_path / "data" / "video0.openings.parquet"
    table = pq.read_table(path).to_pydict()
    held_out = dataset.split(0.15)[1]
    table["opening"][3 * held_out[0] :] = [0.5] * (3 * len(held_out))
    pq.write_table(pa.table(table), path)
    found = evaluate(tmp_path / "data", [], tmp_path / "report")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    written = (tmp_path / "report" / "metrics.json").read_text()
    opening = json.loads(written, parse_constant=refuse)["opening"]
    assert opening == {"estimator": "calibrated", "r_truth": None, "r_truth_luma": None}
    assert not any("do not fit" in note for note in found.notes)


def test_too_little_truth_is_told_apart_from_none(
    data: Path, dataset: GroupDataset, tmp_path: Path
) -> None:
    table = pq.read_table(data / "video0.openings.parquet").to_pydict()
    few = tmp_path / "few.parquet"
    opening = [value if frame < 90 else np.nan for frame, value in enumerate(table["opening"])]
    pq.write_table(pa.table(table | {"opening": opening}), few)
    still = tmp_path / "still.parquet"
    pq.write_table(pa.table(table | {"opening": [0.5] * len(opening)}), still)
    for path in (few, still):
        ruler = make_ruler(dataset, data, path, *dataset.split(0.15))
        assert not ruler.calibrated and "too few true openings" in ruler.sentence
    empty = tmp_path / "empty.parquet"
    pq.write_table(pq.read_table(still).slice(0, 0), empty)
    with pytest.raises(DatasetError, match=r"empty\.parquet: holds no row\."):
        make_ruler(dataset, data, empty, *dataset.split(0.15))


def test_the_ruler_is_luma_where_there_is_no_truth(tmp_path: Path) -> None:
    dataset = write_talking(tmp_path / "data", (6,))
    (tmp_path / "data" / "video0.openings.parquet").unlink()
    ruler = make_ruler(dataset, tmp_path / "data", None, *dataset.split(0.15))
    assert ruler.to_dict() == {"estimator": "luma", "r_truth": None, "r_truth_luma": None}
    assert "no true openings" in ruler.sentence
