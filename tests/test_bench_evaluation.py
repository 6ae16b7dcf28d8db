"""The evaluation's bench, on a fraction of its frames."""

import importlib
import json
from pathlib import Path

import pytest

from s2vgan.metrics import METRICS

BENCH = Path(__file__).resolve().parents[1] / "bench"


def test_every_metric_that_needs_no_weights_has_its_share(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    bench = importlib.import_module("evaluation")
    monkeypatch.setattr(bench, "find_trunk", lambda: None)
    monkeypatch.setattr(bench, "PIECES", 10)
    monkeypatch.setattr(bench, "PIECE_FRAMES", 90)
    bench.main()
    printed = capsys.readouterr().out.splitlines()
    result = json.loads(printed[-1])
    shares = {name.removeprefix("share_") for name in result["figures"] if "share" in name}
    assert shares == METRICS.keys() - {"lpips", "identity", "lse_c", "lse_d"} | {"synthesis"}
    assert result["bench"] == "evaluation"
    assert all(value > 0 for value in result["figures"].values())
    assert "LPIPS is left out" in printed[0]
