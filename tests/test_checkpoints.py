"""Checkpoints: written whole, verified when read, the older one where the newer is damaged."""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from s2vgan import checkpoints
from s2vgan.checkpoints import load_checkpoint, save_checkpoint
from s2vgan.config import Config, ModelConfig
from s2vgan.errors import RunError
from s2vgan.spec import GroupSpec
from s2vgan.training import TrainState

SPEC = GroupSpec(size=32)
CONFIG = Config(ModelConfig(width=4))


def at(step: int) -> TrainState:
    """An untrained state that says it is at a step."""
    state = TrainState.create(CONFIG, SPEC)
    state.step, state.best = step, 0.25
    return state


class Killed(BaseException):
    """The end of a process that gets to clean up nothing."""


def test_killed_between_any_two_changes_to_the_disk_a_whole_checkpoint_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [at(step) for step in (1, 2, 3)]
    counts = itertools.count()

    def mortal(function: Callable[..., Any], limit: int) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(counts) >= limit:
                raise Killed
            return function(*args, **kwargs)

        return call

    seen = set()
    for limit in range(20):
        folder = tmp_path / str(limit)
        for state in states[:2]:
            save_checkpoint(state, folder, "d")
        counts = itertools.count()
        with monkeypatch.context() as patch:
            for owner, name in (
                (Path, "mkdir"), (Path, "open"), (Path, "replace"), (Path, "unlink"),
                (os, "replace"), (os, "fsync"), (torch, "save"),
            ):  # fmt: skip
                patch.setattr(owner, name, mortal(getattr(owner, name), limit))
            try:
                save_checkpoint(states[2], folder, "d")
                whole = True
            except Killed:
                whole = False
        loaded = at(0)
        load_checkpoint(loaded, folder, "d")
        seen.add(loaded.step)
        assert loaded.step == 3 if whole else loaded.step in (2, 3)
        save_checkpoint(at(4), folder, "d")  # and the next one is as ever
        assert sorted(path.name for path in folder.glob("*.pt"))[-1] == "step_0000004.pt"
        if whole:
            break
    assert whole and limit > 8 and seen == {2, 3}


def test_a_process_that_is_killed_in_the_midst_of_a_checkpoint_leaves_the_older_one(
    tmp_path: Path,
) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        import torch
        from s2vgan.checkpoints import save_checkpoint
        from tests.test_checkpoints import at

        folder = Path(sys.argv[1])
        save_checkpoint(at(1), folder, "d")
        whole = torch.save

        def half(content, stream):
            whole(content, stream)
            stream.flush()
            os.truncate(stream.fileno(), stream.tell() // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = half
        save_checkpoint(at(2), folder, "d")
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "step_0000002.tmp").stat().st_size > 0
    state = at(0)
    assert load_checkpoint(state, tmp_path, "d") == []
    assert (state.step, state.best) == (1, 0.25)


def test_a_pickle_with_code_in_it_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path(tmp_path / "was run").touch, ()

    for write in (lambda path: torch.save({"dataset": Code()}, path), None):
        path = save_checkpoint(at(3), tmp_path, "d")
        if write:
            write(path)
        else:
            path.write_bytes(pickle.dumps(Code()))
        path.with_suffix(".sha256").write_text(checkpoints._sha256(path))
        with pytest.raises(RunError, match=r"step_0000003\.pt: .* holds code, which is never run"):
            load_checkpoint(at(0), tmp_path, "d")
    assert not (tmp_path / "was run").exists()


def test_what_is_no_checkpoint_of_this_version_is_named(tmp_path: Path) -> None:
    for content in ([1], {"config": CONFIG.to_dict(), "dataset": "d"}):
        path = save_checkpoint(at(3), tmp_path, "d")
        torch.save(content, path)
        path.with_suffix(".sha256").write_text(checkpoints._sha256(path))
        with pytest.raises(RunError, match=r"step_0000003\.pt: (is no|was written by another)"):
            load_checkpoint(at(0), tmp_path, "d")


def test_a_damaged_hash_is_a_damaged_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(at(1), tmp_path, "d")
    path = save_checkpoint(at(2), tmp_path, "d")
    for content in (b"\xff" * 64, b"", b"0" * 64):
        path.with_suffix(".sha256").write_bytes(content)
        state = at(0)
        assert load_checkpoint(state, tmp_path, "d") == [f"{path} is damaged and was passed over."]
        assert state.step == 1


def test_damaged_checkpoints_do_not_crowd_out_whole_ones(tmp_path: Path) -> None:
    for step in (10, 20):
        save_checkpoint(at(step), tmp_path, "d")
    (tmp_path / "step_0000020.pt").write_bytes(b"torn")
    state = at(0)
    [sentence] = load_checkpoint(state, tmp_path, "d")
    assert "step_0000020.pt is damaged" in sentence
    state.step = 15
    save_checkpoint(state, tmp_path, "d")
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == [
        "step_0000010.pt", "step_0000015.pt"
    ]  # fmt: skip
