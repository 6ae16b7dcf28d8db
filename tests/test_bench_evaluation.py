"""The evaluation's bench, on a fraction of its frames."""

import json

import pytest

from s2vgan.metrics import METRICS
from tests.benches import loaded


def test_every_metric_that_needs_no_weights_has_its_share(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with loaded("evaluation") as bench:
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
