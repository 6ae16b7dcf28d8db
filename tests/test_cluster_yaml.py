import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


@pytest.fixture(scope="module")
def prepared(written: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` reads it, run from the root of the repository."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config: dict[str, Any] = prepare_config(dict(written))
    validate_config(config)
    return config


def test_ray_accepts_it(prepared: dict[str, Any]) -> None:
    nodes = prepared["available_node_types"]
    assert nodes[prepared["head_node_type"]]["resources"]["CPU"] == 0
    assert any(node["resources"].get("GPU") for node in nodes.values())
    workers = [node for node in nodes.values() if node["max_workers"]]
    assert all(node["min_workers"] == 0 for node in workers), "nothing costs while nothing runs"
    assert all(node["max_workers"] <= prepared["max_workers"] for node in workers)


def test_a_wrong_key_would_be_found(written: dict[str, Any]) -> None:
    import jsonschema

    wrong = prepare_config(dict(written)) | {"head_node": {"InstanceType": 7, "no": []}, "x": 1}
    with pytest.raises(jsonschema.ValidationError):
        validate_config(wrong)


def test_every_node_runs_the_ray_that_is_pinned(written: dict[str, Any]) -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    pinned = re.search(r"^ray==(\S+)$", constraints, re.MULTILINE)
    assert pinned is not None
    for image in (written["docker"]["head_image"], written["docker"]["worker_image"]):
        assert f"ray:{pinned[1]}-py311" in image


def test_the_project_is_installed_where_it_is_copied(written: dict[str, Any]) -> None:
    [(target, source)] = written["file_mounts"].items()
    assert source == "." and any(target in command for command in written["setup_commands"])
    assert any("constraints.txt" in command for command in written["setup_commands"])


def test_no_command_takes_itself_for_the_server(written: dict[str, Any]) -> None:
    """`pgrep -f` finds the `bash -c` that holds it, so that MLflow would never start."""
    commands = written["head_start_ray_commands"]
    assert not any("pgrep -f" in command for command in commands)
    assert any("/health" in command and "mlflow server" in command for command in commands)


def test_it_holds_no_secret(written: dict[str, Any]) -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert not re.search(r"AKIA|secret|password|PRIVATE KEY|\d{12}", text, re.IGNORECASE)
    assert set(written["auth"]) == {"ssh_user"}
