"""Rank 0's records of a training run: log, MLflow, samples, checkpoints and the model."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from s2vgan import artifact
from s2vgan.checkpoints import save_checkpoint
from s2vgan.dataset import GroupDataset
from s2vgan.files import write_text
from s2vgan.people import stored_people
from s2vgan.runlog import RunLog
from s2vgan.tracking import Tracker
from s2vgan.training import TrainState
from s2vgan.validation import validate

RUN_FILE, CHECKPOINTS = "run.json", "checkpoints"
SHOWN_LOSSES = ("loss_d", "loss_g")


def read_run(folder: Path) -> dict[str, Any]:
    """The contents of RUN/run.json: name, data, dataset and mlflow_run; empty if there is none."""
    path = folder / RUN_FILE
    return dict(json.loads(path.read_text())) if path.is_file() else {}


class RunBook:
    """Rank 0's records of a run: log, MLflow, samples, checkpoints and the model."""

    def __init__(
        self,
        folder: Path,
        name: str,
        data: str,
        dataset: GroupDataset,
        checked: np.ndarray,
        state: TrainState,
        tracker: Tracker,
        parent: str | None,
    ) -> None:
        """Open the records, or go on with those of the run that ``state`` was loaded from.

        Args:
            folder: of the run.
            name: of the run.
            data: folder or URL of the dataset.
            dataset: its contents.
            checked: (B, K) rows to validate on.
            state: of the run, at the step from which it goes on.
            tracker: not started yet.
            parent: MLflow run of the sweep that the run belongs to.
        """
        self._folder, self._name, self._dataset, self._checked = folder, name, dataset, checked
        self._state, self._tracker = state, tracker
        self._log = RunLog(folder, state.step)
        self._losses: dict[str, float] = {}
        self._logged_step, self._logged_seconds = state.step, state.seconds
        write_text(folder / "config.json", json.dumps(state.config.to_dict(), indent=2) + "\n")
        run = read_run(folder)
        started = tracker.start(
            name,
            state.config.to_dict(),
            tags={"run_folder": str(folder), "git_commit": artifact.git_commit()},
            parent=parent,
            run_id=run.get("mlflow_run"),
        )
        tracker.log_input(dataset.info.sha256, Path(data).name, data)
        run |= {"name": name, "data": data, "dataset": dataset.info.sha256}
        run["mlflow_run"] = started or run.get("mlflow_run")
        write_text(folder / RUN_FILE, json.dumps(run, indent=2) + "\n")

    def log(self, seconds: float, values: dict[str, float]) -> None:
        """One line of losses, at ``seconds`` of training."""
        state, train = self._state, self._state.config.train
        if "loss_g" in values:
            groups = (state.step - self._logged_step) * train.batch
            values = values | {
                "lr_g": train.lr_g,
                "lr_d": train.lr_d,
                "skipped": state.skipped,
                "groups_per_second": groups / max(seconds - self._logged_seconds, 1e-9),
            }
            self._losses = values
        self._logged_step, self._logged_seconds = state.step, seconds
        self._log.write(state.step, seconds, values)
        self._tracker.log_metrics(values, state.step)

    def evaluate(self) -> dict[str, float]:
        """Validate on held-out time; write samples, a checkpoint and the model."""
        state = self._state
        readings: dict[str, float] = {}
        if self._checked.size:
            readings, picture = validate(state, self._dataset, self._checked)
            self._log.write(state.step, state.seconds, readings)
            self._tracker.log_metrics(readings, state.step)
            path = self._folder / "samples" / f"step_{state.step:07d}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            self._tracker.log_file(path, "samples")
        identity, people = self._dataset.info.sha256, []
        if state.config.model.identity:
            ids = self._dataset.video_ids
            people = [ids[number] for number in stored_people(self._dataset)]
        save_checkpoint(state, self._folder / CHECKPOINTS, identity)
        artifact.save(
            self._folder / artifact.FOLDER,
            state.ema,
            state.config,
            name=self._name,
            dataset=identity,
            step=state.step,
            readings=readings,
            mlflow_run=self._tracker.run_id or "",
            people=people,
        )
        losses = {name: value for name, value in self._losses.items() if name in SHOWN_LOSSES}
        return losses | readings

    def close(self, status: str) -> None:
        """End the MLflow run; a finished one gets the model."""
        if status == "FINISHED":
            self._tracker.log_file(self._folder / artifact.FOLDER)
        self._tracker.finish(status)
