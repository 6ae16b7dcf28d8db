"""The winner's way to the registry: evaluated, registered, and champion if it is the better one."""

import dataclasses
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from s2vgan import artifact, tracking
from s2vgan.book import CHECKPOINTS
from s2vgan.config import Config
from s2vgan.errors import RunError
from s2vgan.evaluation import evaluate
from s2vgan.files import write_text
from s2vgan.metrics.score import score_of_run
from s2vgan.report import write_report
from s2vgan.runlog import read_run
from s2vgan.train import train
from tune.search import METRIC
from tune.trials import RUNS_FOLDER, Trial

RESULT_FILE, EVALUATION, RETRAINED = "trials.json", "evaluation", "winner"

Winner = Literal["as-is", "retrain"]


@dataclass(frozen=True)
class Promotion:
    """What became of the winner.

    Attributes:
        winner: name of the best trial.
        how: it was registered as it is, or trained anew.
        model: its folder.
        mlflow: the store's URI.
        version: registered there; None where MLflow does not know the run.
        score: on held-out time, by the evaluation.
        champion: the model it was compared with, such as ``models:/s2vgan/3``; None if there was
            none.
        champion_score: of that model, in the same evaluation; None if it could not be measured.
        crowned: whether the alias champion was given to it.
        sentence: the decision, for people.
    """

    winner: str
    how: Winner
    model: str
    mlflow: str
    version: str | None
    score: float
    champion: str | None
    champion_score: float | None
    crowned: bool
    sentence: str


def best_of(trials: Sequence[Trial], folder: Path) -> Trial:
    """The trial with the best score.

    Raises:
        RunError: if no trial gave a model.
    """
    if not trials or not trials[0].readings:
        reasons = "; ".join(sorted({trial.reason for trial in trials}))
        raise RunError(f"{folder}: no trial gave a model ({reasons}).")
    return trials[0]


def retrain(
    config: Config,
    data: str,
    folder: Path,
    workers: int,
    times: float,
    parent: str | None,
    consent: str = "",
) -> Path:
    """Train the winner's configuration anew, with more budget, in SWEEP/winner.

    It goes on from a checkpoint that is there, and does nothing if it has finished.

    Args:
        config: of the winning trial.
        data: dataset.
        folder: SWEEP.
        workers: of Ray Train.
        times: the budget of one trial.
        parent: the sweep's MLflow run.
        consent: who consented that the face is learned.

    Returns:
        The run's folder.

    Raises:
        S2VError: if the training fails.
        KeyboardInterrupt: on Ctrl-C, after a checkpoint.
    """
    run = folder / RETRAINED
    one = config.train
    longer = dataclasses.replace(one, steps=round(one.steps * times), minutes=one.minutes * times)
    config = dataclasses.replace(config, train=longer)
    if read_run(run).get("status") != "FINISHED":
        started = any((run / CHECKPOINTS).glob("step_*.pt"))
        train(
            config, data, run, workers,
            resume=started, name=RETRAINED, parent=parent, consent=consent,
        )  # fmt: skip
    return run


def promote(
    trials: Sequence[Trial],
    out: str | Path,
    data: str | Path,
    *,
    retrained: Path | None = None,
    force: bool = False,
) -> Promotion:
    """Register the winner; make it the champion if it beats the present one on the same data.

    Both are measured in one evaluation, SWEEP/evaluation, by the code of ``s2vgan evaluate``. A
    champion that cannot be measured on this dataset (another spec) keeps its place. The same
    winner is registered once in each MLflow store. SWEEP/trials.json is written first without, and
    then with what was decided.

    Args:
        trials: best first.
        out: SWEEP.
        data: dataset.
        retrained: run of :func:`retrain`; without it the trial's model is taken as it is.
        force: crown the winner whatever the champion scores.

    Raises:
        RunError: if no trial gave a model, or MLflow refuses it; trials.json is then there.
    """
    folder, store = Path(out).absolute(), tracking.tracking_uri()
    best = best_of(trials, folder)
    how: Winner = "as-is" if retrained is None else "retrain"
    run = retrained or folder / RUNS_FOLDER / best.name
    before = _decided(folder)
    _write(folder, trials, before)
    same = before and (before.winner, before.how, before.mlflow) == (best.name, how, store)
    if before and same and before.version is not None:
        return _again(before, folder, trials, force)
    model = artifact.find(run)
    champion = tracking.find_champion(store)
    score, values, champion_score = _measure(model, champion, folder, data, store)
    beats = champion is None or (champion_score is not None and score > champion_score)
    # Not the manifest's: a run that MLflow was told of late has its id in run.json alone.
    mlflow_run = read_run(run).get("mlflow_run")
    version = None
    if mlflow_run:
        metrics = {"score": score, **values}
        version = tracking.register(model, mlflow_run, metrics, alias=None)
        if beats or force:
            tracking.crown(version, store)
    crowned = version is not None and (beats or force)
    sentence = _sentence(version, score, champion, champion_score, beats, force)
    result = Promotion(
        best.name, how, str(model), store, version, score, champion, champion_score, crowned,
        sentence,
    )  # fmt: skip
    _write(folder, trials, result)
    return result


def _measure(
    model: Path, champion: str | None, folder: Path, data: str | Path, store: str
) -> tuple[float, dict[str, float], float | None]:
    """Score and values of the winner, and the champion's score if it can be measured here."""
    runs = [model]
    with ExitStack() as held:
        if champion:
            runs.append(held.enter_context(tracking.fetch_model(champion, store)))
        evaluation = evaluate(data, runs, folder / EVALUATION)
        write_report(evaluation, folder / EVALUATION)
    rows = evaluation.metrics["rows"]
    score, values = score_of_run(rows, str(model))
    if not champion or all(row["run"] != str(runs[1]) for row in rows):
        return score, values, None
    return score, values, score_of_run(rows, str(runs[1]))[0]


def _sentence(
    version: str | None,
    score: float,
    champion: str | None,
    other: float | None,
    beats: bool,
    force: bool,
) -> str:
    name = f"models:/{tracking.MODEL}/{version}"
    if version is None:
        return "It is not registered, since MLflow was not told of its run."
    if champion is None:
        return f"It is {name}, and the champion: there was none before (score {score:.3f})."
    measured = "which cannot be measured on this dataset" if other is None else f"{other:.3f}"
    compared = f"{score:.3f} on the same held-out time against {champion}: {measured}"
    if beats:
        return f"It is {name}, and the new champion: {compared}."
    if force:
        return f"It is {name}, and the champion by --force: {compared}."
    return f"It is {name}; {champion} stays champion: {compared}. --force overrides this."


def _again(before: Promotion, folder: Path, trials: Sequence[Trial], force: bool) -> Promotion:
    """What was decided before; --force can still change it."""
    if force and not before.crowned and before.version is not None:
        tracking.crown(before.version, before.mlflow)
        sentence = _sentence(
            before.version, before.score, before.champion, before.champion_score, False, True
        )
        before = dataclasses.replace(before, crowned=True, sentence=sentence)
        _write(folder, trials, before)
    return before


def _decided(folder: Path) -> Promotion | None:
    file = folder / RESULT_FILE
    found = json.loads(file.read_text()).get("promotion") if file.is_file() else None
    return Promotion(**found) if found else None


def _write(folder: Path, trials: Sequence[Trial], promotion: Promotion | None) -> None:
    content: dict[str, Any] = {
        "metric": METRIC,
        "promotion": dataclasses.asdict(promotion) if promotion else None,
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    write_text(folder / RESULT_FILE, json.dumps(content, indent=2) + "\n")
