import json
import re
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from s2vgan import __version__, cli
from serve import app as service
from serve.app import DRAIN_SECONDS, Settings
from serve.observability import Meters

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
K8S = DEPLOY / "k8s"


def manifest(name: str) -> Any:
    return yaml.safe_load((K8S / name).read_text())


def pods(cluster: Any) -> list[Any]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


@pytest.mark.parametrize(
    ("name", "kind", "key"),
    [
        ("rayservice.yaml", "RayService", "rayClusterConfig"),
        ("rayjob.yaml", "RayJob", "rayClusterSpec"),
    ],
)
def test_a_manifest_has_what_kuberay_needs(name: str, kind: str, key: str) -> None:
    told = manifest(name)
    assert (told["apiVersion"], told["kind"]) == ("ray.io/v1", kind)
    assert re.fullmatch("[a-z0-9-]{1,47}", told["metadata"]["name"])
    cluster = told["spec"][key]
    assert cluster["rayVersion"] == ray.__version__
    for spec in pods(cluster):
        [container] = spec["containers"]
        assert container["image"].endswith(f":{__version__}")
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        known = {one["name"] for one in spec.get("volumes", [])}
        assert known >= {one["name"] for one in container.get("volumeMounts", [])}
        for one in container["env"]:
            assert "value" in one or one["valueFrom"]["secretKeyRef"]["name"] == "s2vgan"
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_service_is_that_of_the_config_file_and_asks_for_a_token() -> None:
    told = manifest("rayservice.yaml")["spec"]
    config = ServeDeploySchema.model_validate(yaml.safe_load(told["serveConfigV2"]))
    local = yaml.safe_load((Path(service.__file__).parent / "config.yaml").read_text())
    remote = yaml.safe_load(told["serveConfigV2"])
    assert remote["applications"] == local["applications"], "one service, wherever it runs"
    Settings(**config.applications[0].args)
    assert config.http_options.host == "0.0.0.0"
    for spec in pods(told["rayClusterConfig"]):
        [container] = spec["containers"]
        assert "S2VGAN_TOKEN" in {one["name"] for one in container["env"]}
        assert spec["terminationGracePeriodSeconds"] > DRAIN_SECONDS
        ports = {one["name"]: one["containerPort"] for one in container["ports"]}
        assert ports["serve"] == config.http_options.port
        for probe in ("readinessProbe", "livenessProbe"):
            asked = container.get(probe, {"httpGet": {"port": "serve", "path": "/"}})["httpGet"]
            assert asked["port"] in ports and asked["path"].startswith("/")


def test_the_job_is_a_command_that_exists() -> None:
    command, name, *arguments = manifest("rayjob.yaml")["spec"]["entrypoint"].split()
    assert command == "s2vgan"
    make_parser, _ = cli.COMMANDS[name]
    assert make_parser().parse_args(arguments)


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    board = json.loads((DEPLOY / "grafana" / "service.json").read_text())
    meters = Meters()
    meters.request("/v1/speak", 200)
    meters.batch(1, 1, 0.01)
    meters.first_frame("live", 0.01)
    meters.real_time(0.1)
    there = set(re.findall(r"^(s2vgan_\w+?)(?:\{| )", meters.page(0, 0).decode(), re.M))
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"s2vgan_\w+", target["expr"])
    }
    assert asked <= there
    for measured in ("requests_total", "groups_total", "batch_streams", "queue", "factor", "first"):
        assert any(measured in name for name in asked), measured
