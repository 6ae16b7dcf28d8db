"""``s2vgan export``, ``lineage`` and ``mlflow``: models and where they come from."""

import json
import re
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser, Namespace

REGISTERED = re.compile("(models|runs):/")
MODEL_HELP = (
    "a run folder (its latest model), RUN/best or another model folder, or a registered model such "
    "as models:/s2vgan@champion"
)


def export_parser() -> ArgumentParser:
    """Of ``s2vgan export``."""
    parser = ArgumentParser(
        description="Write a model as an ONNX graph that makes one group of frames. Its inputs and "
        "outputs are in docs/serving.md."
    )
    parser.add_argument("--model", type=str, required=True, help=MODEL_HELP)
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--format", type=Literal["onnx"], default="onnx", help="of the file")
    return parser


def export(arguments: Namespace) -> None:
    """Run ``s2vgan export``."""
    from s2vgan import artifact
    from s2vgan.export import export_onnx
    from s2vgan.tracking import fetch_model

    with fetch_model(arguments.model) as folder:
        model = artifact.load(folder)
    export_onnx(model, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 2**20:.1f} MB.")


def lineage_parser() -> ArgumentParser:
    """Of ``s2vgan lineage``."""
    parser = ArgumentParser(
        description="Tell where a model comes from: version, run, configuration, commit, dataset "
        "and the videos it was made of."
    )
    parser.add_argument("model", type=str, help=MODEL_HELP)
    parser.add_argument(
        "--data", type=str | None, help="where the dataset is now, if not where it was in training"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    return parser


def lineage(arguments: Namespace) -> None:
    """Run ``s2vgan lineage``."""
    from s2vgan.tracking import trace

    found = trace(arguments.model, data=arguments.data)
    print(json.dumps(found.to_dict(), indent=2) if arguments.json else found)


def mlflow_parser() -> ArgumentParser:
    """Of ``s2vgan mlflow``."""
    parser = ArgumentParser(
        description="Show the tracked runs and models in MLflow's pages. With --deliver, tell "
        "MLflow what it missed of a run."
    )
    parser.add_argument("--port", type=int, default=5000, help="to listen on, on this machine only")
    parser.add_argument(
        "--deliver", type=Path | None, metavar="RUN", help="a run that MLflow was not told all of"
    )
    return parser


def mlflow(arguments: Namespace) -> None:
    """Run ``s2vgan mlflow``."""
    from s2vgan.tracking import deliver, serve_ui, tracking_uri

    if arguments.deliver:
        run_id = deliver(arguments.deliver)
        print(f"MLflow at {tracking_uri()} knows {arguments.deliver} as run {run_id}.")
        return
    serve_ui(arguments.port)
