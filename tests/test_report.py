"""The report: a whole page that needs nothing from outside."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from s2vgan import figures
from s2vgan.config import Config, TrainConfig
from s2vgan.contenders import Contender
from s2vgan.dataset import GroupDataset
from s2vgan.evaluation import Evaluation, compare
from s2vgan.media import probe
from s2vgan.metrics import METRICS, Instruments
from s2vgan.report import _track, evaluate_and_report, write_report
from s2vgan.tables import SPLITS, columns, latex, markdown
from s2vgan.tracking.runs import EXPERIMENT, experiment_id
from s2vgan.tracking.store import connect
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
        if data.strip() and self.open[-1] not in ("style", "script"):
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
    contender = Contender(run.name, str(run), 0, 0.3, Oracle(dataset), Config())
    other = Contender("other", str(run), 1, 0.3, Oracle(dataset), Config(train=TrainConfig(seed=1)))
    return compare(dataset, [contender, other], Instruments(), training, held_out)


@pytest.fixture(scope="module")
def page(evaluation: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("out")
    path = write_report(evaluation, out)
    assert path == out / "report.html"
    assert {file.name for file in out.iterdir()} == {"report.html", "table.md", "table.tex"}
    return path.read_text()


def test_the_page_is_whole_and_loads_nothing_from_outside(page: str) -> None:
    parsed = Page(page)
    assert parsed.sources and all(source.startswith("data:") for source in parsed.sources)
    assert "http://" not in page and "https://" not in page
    assert sum(source.startswith("data:video/mp4") for source in parsed.sources) == 1
    # Frames and mouths of the real face, two poses and three controls; the first seed stands for
    # its recipe. Then two extremes, error maps, openings and losses.
    assert sum(source.startswith("data:image/png") for source in parsed.sources) == 2 * 6 + 2 + 3


def test_the_page_shows_every_row_metric_and_note(page: str, evaluation: Evaluation) -> None:
    words = Page(page).words
    for row in evaluation.metrics["rows"]:
        assert row["name"] in words
    for name in METRICS:
        assert name in words
    assert {"0.0965", "0.9525", "0.4931"} <= set(words)
    controls = [row for row in evaluation.metrics["rows"] if row["kind"] == "control"]
    assert page.count('<tr class="control">') == len(controls) == 2 * (2 * 2 + 9)
    assert "<b>run" not in page and "&lt;b&gt;run &amp; co" in page


def test_the_best_value_is_bold_and_noise_never_is(evaluation: Evaluation) -> None:
    table = markdown(evaluation.metrics)
    lines = {line.split("|")[1].strip(): line for line in table.splitlines() if "|" in line}
    assert "**1.00**" in lines["<b>run & co · pose held at a reference"]
    for name in ("noise", "real_frames", "previous_frame"):
        assert "**" not in lines[name]
    assert table.count("Held-out time") == table.count("Training time") == 2


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
    lines = markdown({"rows": rows}).splitlines()
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
    models = [shown for shown in showcase.exhibits if shown.entry.kind == "model"][:2]
    path = tmp_path / "video.mp4"
    content, kept = _video(evaluation, models)
    path.write_bytes(content)
    assert kept == len(showcase.real)
    found = probe(path)
    assert (found.width, found.height) == (3 * 256, 256)
    assert found.seconds == pytest.approx(len(showcase.real) / 30, abs=0.1)


def test_frames_of_a_perfect_model_are_the_real_ones(evaluation: Evaluation) -> None:
    models = [shown for shown in evaluation.showcase.exhibits if shown.entry.kind == "model"][:2]
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
    monkeypatch.setattr("s2vgan.rulers.find_trunk", lambda trunk: None)
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    write_talking(tmp_path / "data", (8,))
    path = evaluate_and_report(tmp_path / "data", [], tmp_path / "report")
    printed = capsys.readouterr().out
    assert "mean_face" in printed and "LPIPS is left out" in printed and str(path) in printed
    assert "controls only" in path.read_text()
    written = {file.name for file in path.parent.iterdir()}
    assert written == {"metrics.json", "report.html", "table.md", "table.tex"}
    client = connect(uri)
    [run] = client.search_runs([experiment_id(client, uri, EXPERIMENT)])
    assert run.info.status == "FINISHED" and run.data.tags["kind"] == "evaluation"
    dataset = json.loads((path.parent / "metrics.json").read_text())["dataset"]
    assert run.data.tags["dataset"] == dataset
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == written


def test_numbers_of_models_are_in_mlflow(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    write_report(evaluation, tmp_path / "report")
    (tmp_path / "report" / "metrics.json").write_text("{}")
    _track(evaluation, "somewhere/data", tmp_path / "report")
    client = connect(uri)
    [run] = client.search_runs([experiment_id(client, uri, EXPERIMENT)])
    [row] = [
        row
        for row in evaluation.metrics["rows"]
        if row["name"] == "other" and row["split"] == "heldout" and row["pose"] == "true"
    ]
    assert run.data.metrics["heldout/true/other/ssim"] == row["metrics"]["ssim"]["value"]
    assert "heldout/reference/_b_run _ co/mse" in run.data.metrics


def test_an_mlflow_that_fails_costs_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    write_talking(tmp_path / "data", (8,))
    path = evaluate_and_report(tmp_path / "data", [], tmp_path / "report", metrics=["mse"])
    assert path.is_file()


def test_the_tables_can_be_sorted_by_every_metric(page: str, evaluation: Evaluation) -> None:
    held_out = [row for row in evaluation.metrics["rows"] if row["split"] == "heldout"]
    table = page[page.index('<table class="sortable">') :]
    table = table[: table.index("</table>")]
    names = columns(held_out)
    assert table.count('aria-sort="none"><button') == len(names)
    values = [float(text) for text in re.findall(r'data-value="([^"]+)"', table)]
    expected = [
        row["metrics"][name]["value"]
        for row in held_out
        for name in names
        if name in row["metrics"]
    ]
    assert values == pytest.approx(expected)


def test_differences_and_seeds_are_told(page: str, evaluation: Evaluation) -> None:
    assert evaluation.metrics["recipes"][0]["seeds"] == [0, 1]
    assert "Over seeds" in page and "± 0.00" in page
    assert "<h2>Differences" not in page, "there is one recipe only"


def test_latex_says_the_same_and_survives_names(evaluation: Evaluation) -> None:
    text = latex(evaluation.metrics)
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 4
    assert r"mean\_face & " in text and r"<b>run \& co $\cdot$ pose held" in text
    assert not re.search(r"(?<!\\)_", text) and "−" not in text and "↓" not in text
    assert r"\textbf{" in text
    for line in text.splitlines():
        if line.endswith(r"\\") and line.startswith("row"):
            width = line.count(" & ")
        elif line.endswith(r"\\"):
            assert line.count(" & ") == width, line


def test_every_metric_and_split_has_its_place() -> None:
    everything = [{"metrics": dict.fromkeys(METRICS, 0)}]
    assert set(columns(everything)) == METRICS.keys()
    assert list(SPLITS) == ["heldout", "train", "unseen"]
