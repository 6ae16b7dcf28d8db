"""The summary, the data card, and what the user wrote into it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vgan import groups, ledger, overview
from s2vgan.errors import DatasetError
from s2vgan.ledger import LedgerRow
from s2vgan.spec import GroupSpec

SPEC = GroupSpec(size=32)
HOSTILE = (
    "a<script>alert(1)</script>\"'><img src=x onerror=alert(2)>`|\x1b[31m\n<!-- s2vgan: end -->"
)


def add_video(data: Path, video_id: str, kept: list[int], **fields: Any) -> LedgerRow:
    """A video whose frames are as bright as their group's index (segments: at each gap)."""
    rows, segment = [], 0
    for place, index in enumerate(kept):
        segment += place > 0 and index != kept[place - 1] + 1
        frames = np.full(SPEC.frame_shape, index, np.uint8)
        audio, boxes = np.zeros(1600, np.int16), np.zeros((3, 4), np.int16)
        rows.append(groups.Group(segment, index, frames, audio, boxes))
    written = groups.write_groups(data, video_id, rows, SPEC)
    values: dict[str, Any] = {
        "source": f"talks/{video_id}.mp4",
        "groups": len(kept),
        "segments": segment + 1,
        "seconds": len(kept) / 10,
        "groups_sha256": written.sha256,
        "groups_size": written.size,
        "spec": SPEC.to_dict(),
    }
    row = LedgerRow(video_id=video_id, status="ok", **(values | fields))
    ledger.write_row(data, row)
    return row


def add_refused(data: Path, video_id: str, reason: str, status: Any = "rejected") -> LedgerRow:
    row = LedgerRow(video_id, status, f"talks/{video_id}.mp4", reason, spec=SPEC.to_dict())
    ledger.write_row(data, row)
    return row


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A good video, one that lost most of its groups, and a rejected one."""
    folder = tmp_path / "data"
    add_video(folder, "good", list(range(100)), fps=25.0, frames=300, face_frames=300)
    add_video(
        folder, "poor", [0, 1, 10], dropped={"no_face": 7, "no_audio": 1}, frames=33, face_frames=9,
        timeline=((0, 2, "kept"), (2, 9, "no_face"), (9, 10, "no_audio"), (10, 11, "kept")),
        box_jumps=4, false_starts=5, cpu_seconds=1.5, face="central",
    )  # fmt: skip
    add_refused(folder, "mute", "has no sound.")
    ledger.write_dataset(folder, SPEC)
    return folder


def test_the_summary_counts(data: Path) -> None:
    rows = ledger.read_rows(data)
    said = overview.summary([rows["good"]], [rows["poor"], rows["mute"]])
    for line in (
        "ok               2       103      10.3",
        "rejected         1         0       0.0",
        "dropped groups: no_audio 1 (0.9%), no_face 7 (6.3%)",
        "frames: 333, 24 of them without a face (7.2%); 4 box jumps, 5 false starts",
        "CPU: 0.146 s per second of video",
        "1 of the videos were done or refused before.",
        "rejected: talks/mute.mp4: has no sound.",
    ):
        assert line in said.splitlines()
    assert overview.summary([], []).split() == ["status", "videos", "groups", "seconds"]


def test_a_long_list_of_failures_is_cut(tmp_path: Path) -> None:
    rows = [add_refused(tmp_path, f"v{number:02}", "is mute.") for number in range(50)]
    rows += [add_refused(tmp_path, f"w{number}", "was lost.", "failed") for number in range(7)]
    lines = overview.summary([], rows).splitlines()
    assert sum(line.startswith("rejected: talks/") for line in lines) == 20
    assert "... and 37 more in DATA/ledger; of all 57:" in lines
    assert lines[-2:] == ["    50 x rejected: is mute.", "     7 x failed: was lost."]
    assert not any("more" in line for line in overview.summary([], rows[:20]).splitlines())


def test_a_name_moves_no_cursor_and_tells_no_password(data: Path) -> None:
    row = LedgerRow("x", "failed", "s3://key:secret@bucket/a\x1b[2J\n\u202eb", "of \x07 no use")
    said = overview.summary([], [row])
    assert "secret" not in said and "s3://bucket/a" in said
    assert all(letter.isprintable() for letter in said.replace("\n", ""))
    assert len(said.splitlines()) == 3


def test_a_dataset_is_described(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overview.show(data, videos=1)
    said = capsys.readouterr().out
    assert f"{data}: 103 groups of 2 videos, 10.3 s of faces and speech" in said
    assert ledger.read_dataset(data).sha256 in said
    assert "32x32 pixels, 30 frames/s, tracked crops, groups of 3 (0.1 s)" in said
    poor, good = "  27.3%         3         2  talks/poor.mp4", " 100.0%       100         1"
    assert said.index(poor) < said.index(good) < said.index(f"sheet: {data}/contact_sheet.html")
    assert "run the same extraction" not in said
    add_video(data, "new", [0])
    assert "ahead of dataset.json: run the same extraction" in overview.describe(data)
    with pytest.raises(DatasetError, match="no dataset here"):
        overview.describe(data.parent)


def test_the_same_dataset_gives_the_same_card(data: Path, tmp_path: Path) -> None:
    overview.write_card(data)
    card = data / overview.CARD_FILE
    first, written = card.read_bytes(), card.stat().st_mtime_ns
    overview.write_card(data)
    assert card.stat().st_mtime_ns == written
    card.unlink()
    for row in ledger.read_rows(data).values():
        ledger.write_row(data, dataclasses.replace(row, cpu_seconds=99.25, modified=12345))
    overview.write_card(data)
    assert card.read_bytes() == first
    text = first.decode()
    for words in (
        "103 groups", f"`{ledger.read_dataset(data).sha256}`", "| ok | 2 |", "| no_face | 7 |",
        "| `talks/poor.mp4` | ok | 3 | 0.3 |", "| `talks/mute.mp4` | rejected | 0 | 0.0 |",
        "--size 32 --fps 30 --crop tracked --face central or largest", "must have agreed",
        'read_parquet("groups/good.parquet")', "## Licence",
        "Responsible for this dataset: (fill in",
    ):  # fmt: skip
        assert words in text, words
    with pytest.raises(DatasetError, match="no dataset here"):
        overview.write_card(tmp_path / "none")


def test_a_card_names_fifty_sources(tmp_path: Path) -> None:
    add_video(tmp_path, "zz", [0])
    for number in range(60):
        add_refused(tmp_path, f"v{number:02}", "is mute.")
    ledger.write_dataset(tmp_path, SPEC)
    overview.write_card(tmp_path)
    text = (tmp_path / overview.CARD_FILE).read_text()
    assert text.count("| `talks/") == 50 and "... and 11 more" in text
    assert text.index("zz.mp4") < text.index("v00.mp4")  # those that gave groups first


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_what_the_user_wrote_is_kept(data: Path, newline: str) -> None:
    overview.write_card(data)
    card = data / overview.CARD_FILE
    mine = card.read_text().replace(
        "Responsible for this dataset: (fill in: name and address)", "Eve"
    )
    mine = f"My words first.\n{mine.replace('- Licence: (fill in)', '- CC BY 4.0')}And last.\n"
    card.write_bytes(mine.replace("\n", newline).encode() + b"\xff")
    add_video(data, "third", list(range(7)))
    ledger.write_dataset(data, SPEC)
    overview.write_card(data)
    found = card.read_bytes()
    assert found.startswith(b"My words first.") and found.endswith(b"\xff")
    assert b"- Eve" in found and b"- CC BY 4.0" in found and b"And last." in found
    assert b"110 groups" in found and b"103 groups" not in found
    assert found.count(b"## Consent") == found.count(b"## Sources") == 1
    before, after = mine.replace("\n", newline).encode().split(b"<!-- s2vgan: begin")
    assert found.startswith(before)
    assert found.endswith(after.split(b"<!-- s2vgan: end -->")[1] + b"\xff")


def test_damaged_marks_cost_no_word(data: Path) -> None:
    overview.write_card(data)
    card = data / overview.CARD_FILE
    whole = card.read_text()
    card.write_text("Only mine.\n")
    overview.write_card(data)
    assert card.read_text().startswith("Only mine.\n\n<!-- s2vgan: begin")
    card.write_text(whole.replace("<!-- s2vgan: end -->", "Mine, where the end was."))
    for _ in range(3):  # what is added the first time is renewed by the next
        overview.write_card(data)
        text = card.read_text()
        assert "Mine, where the end was." in text and "## Consent" in text
        assert text.count("## Known limits") == 2
    card.write_text("  \n")
    overview.write_card(data)
    assert card.read_text() == whole


def test_a_hostile_name_stays_a_name_in_the_card(data: Path) -> None:
    add_video(data, "evil", [0], source=HOSTILE)
    ledger.write_dataset(data, SPEC)
    overview.write_card(data)
    card = data / overview.CARD_FILE
    text = card.read_text()
    [line] = [line for line in text.splitlines() if "alert(1)" in line]
    assert line.startswith("| ``a<script>") and line.endswith("`` | ok | 1 | 0.1 |")
    assert "\\|" in line and "\x1b" not in text
    card.write_text(text + "Mine.\n")
    overview.write_card(data)
    assert card.read_text() == text + "Mine.\n"


def test_the_card_is_read_in_ours(data: Path, tmp_path: Path) -> None:
    """The code in the card runs as it stands."""
    overview.write_card(data)
    lines = (data / overview.CARD_FILE).read_text().split("## How to read it")[1].splitlines()
    code = "\n".join(line.strip() for line in lines if line.startswith("    "))
    found: dict[str, Any] = {}
    exec(code.replace('"groups/', f'"{data}/groups/'), found)
    assert found["frames"].shape == SPEC.frame_shape and found["speech"].shape == (1600,)


def test_parts_of_a_video_are_told_apart(data: Path) -> None:
    add_video(data, "one", [0, 1], source="talk.mp4", start=1.5, end=60.0)
    add_video(data, "rest", [0, 1], source="talk.mp4", start=60.0)
    info = ledger.write_dataset(data, SPEC)
    overview.write_card(data)
    page = Path(overview.write_sheet(data))
    places = (overview.describe(data), (data / overview.CARD_FILE).read_text(), page.read_text())
    for said in places:
        assert len(info.groups) == 4 and "talk.mp4 1.5-60 s" in said and "talk.mp4 60- s" in said
