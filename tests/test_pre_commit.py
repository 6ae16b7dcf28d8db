from pathlib import Path

import yaml

CONFIG = Path(__file__).parent.parent / ".pre-commit-config.yaml"


def test_hooks_are_the_tools_of_make_lint_and_fetch_nothing() -> None:
    repos = yaml.safe_load(CONFIG.read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = repos[0]["hooks"]
    assert [hook["entry"].split(" --")[0] for hook in hooks] == [
        "ruff check",
        "ruff format",
        "mypy",
    ]
    assert all(hook["language"] == "system" for hook in hooks)
