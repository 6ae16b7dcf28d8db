from pathlib import Path

import pytest

from s2vgan.files import write_text


def test_a_file_is_replaced_whole_or_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "state.json"
    write_text(path, "first ü")
    write_text(path, "second ü")
    assert path.read_text(encoding="utf-8") == "second ü"
    assert list(path.parent.iterdir()) == [path]

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "third")
    assert path.read_text(encoding="utf-8") == "second ü"
    assert list(path.parent.iterdir()) == [path]
