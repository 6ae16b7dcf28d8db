"""ONNX Runtime speaks as PyTorch does, and its graph is exported once."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2vgan import artifact, cache, engine
from s2vgan.engine import OnnxFace, fitting, load_onnx
from s2vgan.errors import ConfigError, RunError
from s2vgan.export import export_onnx
from s2vgan.streams import advance
from s2vgan.synthesis import Synthesizer
from tests.test_streams import MODELS, options, random_model, random_speech

ONE_FACE = [kind for kind, model in MODELS.items() if not model.identity]


@pytest.mark.parametrize("kind", ONE_FACE)
def test_streams_of_both_engines_are_alike(kind: str, tmp_path: Path) -> None:
    model = random_model(MODELS[kind], strength=0.05)
    export_onnx(model, tmp_path / "model.onnx")
    torch_, onnx = (
        Synthesizer(model),
        Synthesizer(model, OnnxFace(model.face, tmp_path / "model.onnx")),
    )
    expected = [torch_.speak(random_speech(seed), **options(torch_, seed)) for seed in range(3)]
    streams = [onnx.stream(**options(onnx, seed)) for seed in range(3)]
    for seed, stream in enumerate(streams):
        stream.feed(random_speech(seed))
        stream.end()
    for found, wanted in zip(advance(streams), expected, strict=True):
        assert np.abs(found.astype(int) - wanted).max() <= 1
        assert wanted.std() > 1
    first = onnx.speak(random_speech(0), **options(onnx, 0))  # alone, from no state
    assert np.abs(first.astype(int) - expected[0]).max() <= 1


def test_the_graph_is_exported_once_and_again_if_damaged(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    started: list[Any] = []
    run = subprocess.run

    def counted(command: list[str], **kwargs: Any) -> Any:
        started.append(command)
        return run(command, **kwargs)

    monkeypatch.setattr(engine.subprocess, "run", counted)
    model = artifact.load(run_folder)
    for times in (1, 1):
        assert isinstance(load_onnx(run_folder, model), OnnxFace)
        assert len(started) == times and "export" in started[0]
    (graph,) = (tmp_path / "cache").glob("graph-*/model.onnx")
    whole = graph.read_bytes()
    graph.write_bytes(whole[: len(whole) // 2])
    assert isinstance(load_onnx(run_folder, model), OnnxFace)
    assert len(started) == 2 and graph.read_bytes() == whole

    other = random_model(MODELS["gru"])  # a graph that makes other frames than the network
    export_onnx(other, graph)
    assert isinstance(load_onnx(run_folder, model), OnnxFace)
    assert len(started) == 3 and graph.read_bytes() == whole


def failing(command: list[str], **kwargs: Any) -> Any:
    return subprocess.CompletedProcess(command, 2, "", "s2vgan: out of paper.")


def late(command: list[str], **kwargs: Any) -> Any:
    raise subprocess.TimeoutExpired(command, 1.0)


def wrong(command: list[str], **kwargs: Any) -> Any:
    export_onnx(random_model(MODELS["gru"]), Path(command[-1]))
    return subprocess.CompletedProcess(command, 0)


@pytest.mark.parametrize(
    ("export", "says"),
    [(failing, "out of paper"), (late, "took more than"), (wrong, "by ONNX Runtime differ by")],
)
def test_an_export_that_fails_leaves_nothing(
    export: Callable[..., Any],
    says: str,
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(engine.subprocess, "run", export)
    with pytest.raises(RunError, match=says):
        load_onnx(run_folder, artifact.load(run_folder))
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_other_weights_are_another_graph(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    load_onnx(run_folder, artifact.load(run_folder))
    model = artifact.load(shutil.copytree(run_folder / "model", tmp_path / "other"))
    with torch.no_grad():
        next(model.face.generator.parameters()).add_(0.5)
    readings = {"score": 1.0}
    artifact.save(
        tmp_path / "other", model.face, model.config, name="other", dataset="", step=1,
        readings=readings,
    )  # fmt: skip
    load_onnx(tmp_path / "other", artifact.load(tmp_path / "other"))
    assert len(list((tmp_path / "cache").glob("graph-*"))) == 2


def test_a_model_with_an_identity_is_left_to_torch(tmp_path: Path) -> None:
    one, several = random_model(MODELS["gru"]), random_model(MODELS["identity"])
    assert [fitting(one, "onnx"), fitting(one, "torch")] == ["onnx", "torch"]
    assert fitting(several, "onnx") == "torch"
    with pytest.raises(ConfigError, match="use torch"):
        load_onnx(tmp_path, several)
