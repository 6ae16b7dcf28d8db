"""Rank 0's records of a training run: log, MLflow, samples, checkpoints and the model."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError

from s2vgan import artifact, detectors
from s2vgan.checkpoints import save_checkpoint
from s2vgan.dataset import GroupDataset
from s2vgan.errors import RunError
from s2vgan.files import write_text
from s2vgan.media import QUICK, write_video
from s2vgan.people import stored_people
from s2vgan.runlog import RunLog, read_log, read_run, unwritten, update_run, writing
from s2vgan.synthesis import enlarge
from s2vgan.tracking import Delivery
from s2vgan.training import TrainState
from s2vgan.validation import Samples, validate

CHECKPOINTS = "checkpoints"
SHOWN_LOSSES = ("loss_d", "loss_g")
FILM_SIDE = 256  # pixels of a face in a sample video, about: small ones are enlarged


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
        tracking: str,
        parent: str | None,
        warnings: Sequence[str] = (),
        consent: str = "",
    ) -> None:
        """Open the records, or go on with those of the run that ``state`` was loaded from.

        Args:
            folder: of the run.
            name: of the run.
            data: folder or URL of the dataset.
            dataset: its contents.
            checked: (B, K) rows to validate on.
            state: of the run, at the step from which it goes on.
            tracking: MLflow URI.
            parent: MLflow run of the sweep that the run belongs to.
            warnings: about what was met at the start.
            consent: who consented that the face is learned; empty keeps what the run has.

        Raises:
            RunError: if they cannot be written; so do all methods.
        """
        self._folder, self._name, self._dataset, self._checked = folder, name, dataset, checked
        self._state = state
        _tidy(folder)
        resumed = state.step > 0
        self._log = RunLog(folder, state.step if resumed else -1)
        self._losses: dict[str, float] = {}
        self._recent: list[dict[str, float]] = []  # lines of losses
        self._fresh = 0  # of these, since the last evaluation
        self._logged_step, self._logged_seconds, self._waited = state.step, state.seconds, 0.0
        with writing(folder / "config.json"):
            write_text(folder / "config.json", json.dumps(state.config.to_dict(), indent=2) + "\n")
        old = read_run(folder)
        new = {
            "name": name,
            "data": data,
            "dataset": dataset.info.sha256,
            "parent": parent,
            "tags": {"run_folder": str(folder), "git_commit": artifact.git_commit()},
            "begun": int(time.time() * 1000),
            "ended": None,
            "status": "RUNNING",
            "step": state.step if resumed else -1,
            "consent": consent or old.get("consent", ""),
            "mlflow_run": None,
            "told": None,
        }
        update_run(folder, **new | {k: old[k] for k in ("begun", "mlflow_run", "told") if k in old})
        self._delivery = Delivery(folder, tracking)
        self._warn(warnings)
        self._deliver()

    def log(self, seconds: float, values: dict[str, float], waited: float = 0.0) -> None:
        """One line of losses, at ``seconds`` of training; so far it has ``waited`` for batches."""
        state, train = self._state, self._state.config.train
        if "loss_g" in values:
            groups = (state.step - self._logged_step) * train.batch
            passed = max(seconds - self._logged_seconds, 1e-9)
            values = values | {
                "lr_g": train.lr_g,
                "lr_d": train.lr_d,
                "skipped": state.skipped,
                "groups_per_second": groups / passed,
                "data_wait": (waited - self._waited) / passed,
            }
            self._losses, self._waited = values, waited
            self._recent.append(values)
            self._fresh += 1
        self._logged_step, self._logged_seconds = state.step, seconds
        self._log.write(state.step, seconds, values)

    def evaluate(self) -> dict[str, float]:
        """Validate on held-out time; write samples, the model and a checkpoint.

        The checkpoint comes last, and with it the step up to which MLflow is told: what a run
        that goes on from the one before will do again has been told to nobody.
        """
        state = self._state
        readings: dict[str, float] = {}
        if self._checked.size:
            readings, samples = validate(state, self._dataset, self._checked)
            # Short intervals are judged by lines before them as well.
            judged = self._recent[-max(self._fresh, detectors.FEWEST) :]
            warnings = detectors.find(state.config, state.step, judged, readings)
            self._log.write(state.step, state.seconds, readings, warnings)
            tags = read_run(self._folder)["tags"] | {detectors.TAG: " ".join(warnings) or "none"}
            update_run(self._folder, tags=tags)
            self._recent, self._fresh = self._recent[-detectors.FEWEST :], 0
            self._write_samples(samples)
        self._save_model(artifact.FOLDER, readings)
        score = readings.get("val/score", float("nan"))
        if score > state.best or (readings and not (self._folder / artifact.BEST).is_dir()):
            state.best = max(state.best, score)
            self._save_model(artifact.BEST, readings)
        self.save()
        losses = {name: value for name, value in self._losses.items() if name in SHOWN_LOSSES}
        return losses | readings

    def is_evaluated(self) -> bool:
        """Whether the checkpoint that the run goes on from is that of an evaluation."""
        lines = read_log(self._folder)
        return any(line["step"] == self._state.step and "val/score" in line for line in lines)

    def save(self) -> None:
        """Write a checkpoint, and tell MLflow what it settles."""
        state = self._state
        save_checkpoint(state, self._folder / CHECKPOINTS, self._dataset.info.sha256)
        update_run(self._folder, step=state.step)
        self._deliver()

    def _write_samples(self, samples: Samples) -> None:
        """RUN/samples/step_XXXXXXX.png and .mp4; MLflow gets all that is in that folder."""
        picture = self._folder / "samples" / f"step_{self._state.step:07d}.png"
        encoded = cv2.imencode(".png", cv2.cvtColor(samples.picture, cv2.COLOR_RGB2BGR))[1]
        with writing(picture):
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(encoded.tobytes())
        spec, film = self._dataset.spec, picture.with_suffix(".mp4")
        frames = enlarge(samples.film, max(1, FILM_SIDE // spec.size))
        with writing(film):
            write_video(film, frames, spec.fps, samples.speech, spec.sample_rate, codecs=QUICK)

    def close(self, status: str) -> None:
        """End the run as FINISHED, FAILED or KILLED; MLflow gets the models of a finished one."""
        update_run(self._folder, status=status, ended=int(time.time() * 1000))
        self._deliver(last=True)

    def _save_model(self, name: str, readings: dict[str, float]) -> None:
        state, folder, people = self._state, self._folder / name, []
        run = read_run(self._folder)
        if state.config.model.identity:
            ids = self._dataset.video_ids
            people = [ids[number] for number in stored_people(self._dataset)]
        try:
            artifact.save(
                folder,
                state.ema,
                state.config,
                name=self._name,
                dataset=self._dataset.info.sha256,
                step=state.step,
                readings=readings,
                mlflow_run=run["mlflow_run"] or "",
                people=people,
                consent=run.get("consent", ""),
            )
        except (OSError, SafetensorError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise RunError(unwritten(folder, reason or str(error))) from error

    def _deliver(self, last: bool = False) -> None:
        if warning := self._delivery.attempt(last):
            self._warn([warning])

    def _warn(self, sentences: Sequence[str]) -> None:
        """Put sentences into the log, from which the launcher tells them."""
        if sentences:
            self._log.write(self._state.step, self._state.seconds, {}, sentences)


def _tidy(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left."""
    for pattern in (f".{artifact.FOLDER}.*", f".{artifact.BEST}.*"):
        for left in folder.glob(pattern):
            shutil.rmtree(left, ignore_errors=True)
    for left in (*folder.glob(".*.tmp"), *(folder / CHECKPOINTS).glob("*.tmp")):
        left.unlink()
