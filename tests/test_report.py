"""The report: a whole page that needs nothing from outside."""

import io
import json
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from s2vgan import figures
from s2vgan.contenders import Contender
from s2vgan.dataset import GroupDataset
from s2vgan.evaluation import Evaluation, compare
from s2vgan.media import probe
from s2vgan.metrics import METRICS, Instruments
from s2vgan.report import evaluate_and_report, text_table, write_report
from tests.test_evaluation import Oracle, write_talking

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that tags are balanced and collects what the page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.words.append(data.strip())


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("report")
    dataset: GroupDataset = write_talking(folder / "data", (20,))
    training, held_out = dataset.split(0.3)
    run = folder / "<b>run & co"
    run.mkdir()
    lines = [
        {"step": step, "seconds": step / 5, "loss_d": 1.3 - step / 99, "loss_g": 0.7, "loss/gan": 1}
        for step in range(60)
    ]
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    contender = Contender(run.name, str(run), 0, 0.3, Oracle(dataset))
    return compare(dataset, [contender], Instruments(), training, held_out)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("out")
    path = write_report(evaluation, out)
    assert path == out / "report.html" and [path] == list(out.iterdir())
    return path.read_text()


def test_the_page_is_whole_and_loads_nothing_from_outside(page: str) -> None:
    parsed = Page(page)
    assert parsed.sources and all(source.startswith("data:") for source in parsed.sources)
    assert "http://" not in page and "https://" not in page
    assert sum(source.startswith("data:video/mp4") for source in parsed.sources) == 1
    # Frames and mouths of the real face, two poses and the mean face; openings and losses.
    assert sum(source.startswith("data:image/png") for source in parsed.sources) == 2 * 4 + 2


def test_the_page_shows_every_row_metric_and_note(page: str, evaluation: Evaluation) -> None:
    words = Page(page).words
    for row in evaluation.metrics["rows"]:
        assert row["name"] in words
    for name in METRICS:
        assert name in words
    assert {"0.0965", "0.9525", "0.4931"} <= set(words)
    assert page.count('<tr class="control">') == 2 * 4
    assert "<b>run" not in page and "&lt;b&gt;run &amp; co" in page


def test_the_best_value_is_bold_and_noise_never_is(evaluation: Evaluation) -> None:
    table = text_table(evaluation.metrics)
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if "|" in line}
    assert "**0.0000**" in lines["<b>run & co · pose held at a reference"]
    assert "**" not in lines["noise"]
    assert table.count("Held-out time") == table.count("Training time") == 1


def test_noise_is_not_bold_where_it_looks_like_the_best() -> None:
    rows = [
        {
            "name": name,
            "run": None,
            "kind": "control",
            "split": "train",
            "n": 3,
            "metrics": {"flicker": {"value": value, "ci_low": None, "ci_high": None}},
        }
        for name, value in (("mean_face", 0.99), ("alike", 0.991), ("noise", 0.99))
    ]
    lines = text_table({"rows": rows}).splitlines()
    assert [("**" in line) for line in lines[-3:]] == [True, True, False]


def test_a_video_cut_for_its_size_says_how_long_it_is(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2vgan.report.VIDEO_BYTES", 1)
    words = Page(write_report(evaluation, tmp_path).read_text()).words
    [caption] = [" ".join(text.split()) for text in words if text.startswith("From the left")]
    assert caption.endswith("Held-out time, 1 s.")
    assert any(text.startswith("The same instants") and "6 s." in text for text in words)


def test_the_video_has_every_column_and_its_sound(evaluation: Evaluation, tmp_path: Path) -> None:
    from s2vgan.report import _video

    showcase = evaluation.showcase
    models = [shown for shown in showcase.exhibits if shown.entry.kind == "model"]
    path = tmp_path / "video.mp4"
    content, kept = _video(evaluation, models)
    path.write_bytes(content)
    assert kept == len(showcase.real)
    found = probe(path)
    assert (found.width, found.height) == (3 * 256, 256)
    assert found.seconds == pytest.approx(len(showcase.real) / 30, abs=0.1)


def test_frames_of_a_perfect_model_are_the_real_ones(evaluation: Evaluation) -> None:
    models = [shown for shown in evaluation.showcase.exhibits if shown.entry.kind == "model"]
    for rows in (figures.frame_rows, figures.mouth_rows):
        pictures = list(rows(evaluation.showcase, models).values())
        assert len(pictures) == 3 and pictures[0] == pictures[1] == pictures[2]
        image = matplotlib.image.imread(io.BytesIO(pictures[0]))
        assert image.shape[1] > image.shape[0] and np.ptp(image) > 0.2


def test_runs_without_a_log_have_no_loss_curves() -> None:
    assert figures.loss_plot({"run": []}) is None
    assert figures.loss_plot({"run": [{"step": 1, "val/score": 0.1}]}) is None


def test_evaluate_and_report_prints_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s2vgan.evaluation.find_trunk", lambda trunk: None)
    write_talking(tmp_path / "data", (8,))
    path = evaluate_and_report(tmp_path / "data", [], tmp_path / "report")
    printed = capsys.readouterr().out
    assert "mean_face" in printed and "LPIPS is left out" in printed and str(path) in printed
    assert "controls only" in path.read_text()
    assert (tmp_path / "report" / "metrics.json").is_file()
