"""The contact sheet: a page that needs nothing from outside and shows what the groups hold."""

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from s2vgan import contact_sheet, groups, ledger
from s2vgan.contact_sheet import write_sheet
from s2vgan.errors import ConfigError, DatasetError
from s2vgan.spec import GroupSpec
from tests.test_overview import HOSTILE, SPEC, add_refused, add_video
from tests.test_overview import data as data  # the fixture

VOID = {"meta", "input", "br"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects tags, words and what the page could load."""

    def __init__(self, path: Path | str) -> None:
        super().__init__()
        self.text = Path(path).read_text()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.classes: list[str] = []
        self.words = ""
        self.feed(self.text)
        assert not self.open, f"not closed: {self.open}"
        self.images = re.findall(r"url\(data:image/jpeg;base64,([^)]*)\)", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "data", "action", "srcset"):
                self.loads.append(value or "")
            if tag == "article" and name == "class":
                self.classes.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += f" {' '.join(data.split())}"


def strip(image: str) -> np.ndarray:
    """Brightness of the cells of a sprite."""
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(image), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return pixels.reshape(32, -1, 32, 3).mean(axis=(0, 2, 3))


def test_the_page_shows_what_the_groups_hold(data: Path) -> None:
    page = Page(write_sheet(data, crops=5))
    assert len(page.images) == 2
    poor, good = map(strip, page.images)  # what has problems comes first
    assert poor == pytest.approx([11 / 3, 0, 1, 10], abs=1.5)
    assert good == pytest.approx([49.5, 0, 25, 50, 74, 99], abs=1.5)
    assert page.classes == ["problem", "fine", "problem"]
    for words in (
        "talks/good.mp4", "talks/poor.mp4", "talks/mute.mp4", "has no sound.", "103 groups, 10.3 s",
        "less than half kept", "27 % kept: 3 groups in 2 segments",
        "24 of 33 frames without a face",
        "4 box jumps · 5 false starts", "no frontal face: 7", "kept 92.8 %", "0:07.4",
        "0:00.2 – 0:00.9: no frontal face", "2 ok", "1 rejected", "32×32 pixels",
    ):  # fmt: skip
        assert words in page.words, words


def test_the_page_is_offline(data: Path) -> None:
    page = Page(write_sheet(data))
    assert page.loads and all(link.startswith("#") for link in page.loads)
    assert not page.tags & {"script", "link", "iframe", "object", "img", "base", "form"}
    assert all(
        url.startswith("url(data:image/jpeg") for url in re.findall(r"url\([^)]*", page.text)
    )
    assert "http:" not in page.text and "https:" not in page.text and "@import" not in page.text
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in page.text


def test_a_hostile_name_stays_a_name(data: Path) -> None:
    add_video(data, "evil", [0], source=HOSTILE, dropped={"<b>": 1}, timeline=((0, 2, '"><b>'),))
    add_refused(data, "worse", f"because of {HOSTILE}")
    ledger.write_dataset(data, SPEC)
    page = Page(write_sheet(data))
    assert not page.tags & {"script", "img", "b>"}
    assert page.words.count("<script>alert(1)</script>\"'><img src=x onerror=alert(2)>") == 2
    assert "\x1b" not in page.text


def test_bars_show_the_timeline(data: Path) -> None:
    page = Page(write_sheet(data))
    poor, good = re.findall(r"<svg.*?</svg>", page.text, re.DOTALL)
    assert '<path class="no_face" d="M182 4h636V10h-636z"/>' in poor
    assert '<path class="kept" d="M0 0h182V10h-182zM909 0h91V10h-91z"/>' in poor
    assert '<path class="border" d="M909 0v10"/>' in poor
    assert '<path class="kept" d="M0 0h1000V10h-1000z"/>' in good and "border" not in good
    add_video(data, "old", [5, 6, 8, 9])  # the ledger of an old version has no timeline
    ledger.write_dataset(data, SPEC)
    [old] = [svg for svg in re.findall(r"<svg.*?</svg>", Page(write_sheet(data)).text, re.DOTALL)
             if 'class="other"' in svg]  # fmt: skip
    assert 'class="other" d="M0 4h500V10h-500zM700 4h100V10h-100z"' in old


def test_a_short_stretch_of_a_long_video_is_seen(data: Path) -> None:
    timeline = ((0, 5000, "kept"), (5000, 5001, "no_face"), (5001, 10_000, "kept"))
    add_video(data, "long", [0], timeline=timeline)
    ledger.write_dataset(data, SPEC)
    assert 'class="no_face" d="M500 4h1V10h-1z"' in Page(write_sheet(data)).text


def test_a_bar_of_very_many_stretches_stays_small(data: Path) -> None:
    timeline = tuple((at, at + 1, ("kept", "jump")[at % 2]) for at in range(70_000))
    add_video(data, "long", [0], timeline=timeline)
    ledger.write_dataset(data, SPEC)
    page = Page(write_sheet(data))
    assert len(page.text) < 100_000
    assert "… and 34988 shorter ones" in page.words


def test_of_many_videos_the_worst_and_some_others_get_crops(tmp_path: Path) -> None:
    for number in range(12):
        add_video(tmp_path, f"v{number:02}", [0, 1], dropped={"jump": number})
    for number in range(3):
        add_refused(tmp_path, f"w{number}", "is mute.")
    ledger.write_dataset(tmp_path, SPEC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contact_sheet, "_REFUSED", 1)
        page = Page(write_sheet(tmp_path, videos=4))
    assert len(page.images) == 4
    assert re.findall(r"talks/v(\d\d)\.mp4</h3>", page.text) == ["11", "10", "09", "00"]
    assert "4 of 12: half of them those that lost most" in page.words
    assert "talks/w0.mp4" in page.words and "talks/w1.mp4" not in page.words
    assert "… and 2 more, in the dataset's ledger" in page.words


def test_forty_videos_stay_below_ten_megabytes(tmp_path: Path) -> None:
    spec = GroupSpec(size=128)
    random, rows = np.random.default_rng(0), []
    for index in range(16):
        frames = random.normal(128, 20, spec.frame_shape).clip(0, 255)  # worse than any face
        audio, boxes = np.zeros(1600, np.int16), np.zeros((3, 4), np.int16)
        rows.append(groups.Group(0, index, frames.astype(np.uint8), audio, boxes))
    written = groups.write_groups(tmp_path, "v", rows, spec)
    row = ledger.LedgerRow(
        "v", "ok", "v", groups=16, groups_sha256=written.sha256, groups_size=written.size,
        spec=spec.to_dict(),
    )  # fmt: skip
    ledger.write_row(tmp_path, row)
    ledger.write_dataset(tmp_path, spec)
    [image] = Page(write_sheet(tmp_path)).images
    assert 10_000 < len(image) < 240_000


def test_a_video_that_cannot_be_read_spoils_no_page(data: Path) -> None:
    (data / "groups/good.parquet").write_bytes(b"PAR1")
    page = Page(write_sheet(data))
    assert len(page.images) == 1 and page.classes.count("problem") == 3
    assert (
        "its groups cannot be read" in page.words and "good.parquet: cannot be read" in page.words
    )


def test_the_page_goes_where_it_is_wanted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_sheet(data) == f"{data}/contact_sheet.html"
    assert write_sheet(f"{data}/") == f"{data}/contact_sheet.html"
    first = Page(data / "contact_sheet.html").text
    assert write_sheet(data, "here.html") == "here.html"
    assert write_sheet(data, tmp_path / "new/there.html") == f"{tmp_path}/new/there.html"
    assert write_sheet(data, tmp_path) == f"{tmp_path}/contact_sheet.html"
    assert (
        write_sheet(data.as_uri(), f"{tmp_path.as_uri()}/u.html") == f"{tmp_path.as_uri()}/u.html"
    )
    for name in ("here.html", "new/there.html", "contact_sheet.html"):
        assert (tmp_path / name).read_text() == first
    assert len(Page(tmp_path / "u.html").images) == 2
    assert not list(tmp_path.rglob("*.tmp"))
    with pytest.raises(
        DatasetError, match=r"here.html/x.html: the page cannot be written.*--sheet"
    ):
        write_sheet(data, "here.html/x.html")
    with pytest.raises(ConfigError, match="0 videos"):
        write_sheet(data, videos=0)
    with pytest.raises(DatasetError, match="no dataset here"):
        write_sheet(tmp_path)
