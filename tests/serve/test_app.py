import socket
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from s2vgan import tracking
from s2vgan.provenance import certificate
from serve import app as service

CONFIG = Path(service.__file__).parent / "config.yaml"


def test_config_is_what_ray_accepts_and_names_what_exists() -> None:
    config = ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text()))
    [application] = config.applications
    assert application.import_path == "serve.app:app"
    settings = service.Settings(**application.args)
    assert settings.model == tracking.CHAMPION
    [deployment] = application.deployments
    assert deployment.name == service.Speaker.name  # type: ignore[attr-defined]
    assert config.http_options.host == "127.0.0.1", "closed to the network until someone opens it"


def test_the_model_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S2VGAN_MODEL", raising=False)
    assert service.Settings().model == tracking.CHAMPION
    monkeypatch.setenv("S2VGAN_MODEL", "runs/demo")
    assert service.Settings().model == "runs/demo"
    with pytest.raises(ValidationError, match="modle"):
        service.Settings(modle="runs/demo")  # type: ignore[call-arg]


def test_a_taken_port_is_a_sentence_and_2(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind((service.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert service.main(["--port", str(port), "--model", str(run_folder)]) == 2
    assert f"port {port}" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["S2VGAN_WATERMARK_KEY", "S2VGAN_C2PA_CERT"])
def test_what_cannot_mark_does_not_start(
    variable: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "short")
    assert service.main([]) == 2
    assert variable in capsys.readouterr().err


def test_a_certificate_of_the_past_does_not_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2VGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(certificate, "_DAYS", 0.5)  # from yesterday on
    assert service.main([]) == 2
    said = capsys.readouterr().err
    assert "not valid at time" in said and "S2VGAN_C2PA_CERT: in its time" in said


def test_without_the_library_of_credentials_nothing_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    assert service.main([]) == 2
    assert "pip install c2pa-python" in capsys.readouterr().err


def test_ray_lets_in_more_than_the_application_does(run_folder: Path) -> None:
    settings = service.Settings(model=str(run_folder), speakers=100, waiting=50)
    assert service.app(settings)._bound_deployment.max_ongoing_requests > 150


def test_no_model_is_a_sentence_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    for model in (tracking.CHAMPION, str(tmp_path)):
        with socket.socket() as free:
            free.bind((service.HOST, 0))
            port = free.getsockname()[1]
        assert service.main(["--port", str(port), "--model", model]) == 2
        assert model in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
