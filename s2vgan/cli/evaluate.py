"""``s2vgan evaluate``."""

from contextlib import ExitStack
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from s2vgan.cli.models import MODEL_HELP, REGISTERED


def evaluate_parser() -> ArgumentParser:
    """Of ``s2vgan evaluate``."""
    parser = ArgumentParser(
        description="Measure runs on training time and on held-out time, beside controls. Writes "
        "REPORT/metrics.json and REPORT/report.html."
    )
    parser.add_argument("--data", type=str, required=True, help="dataset folder or URL")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("runs", nargs="+", type=str, help=MODEL_HELP)
    parser.add_argument(
        "--openings",
        type=Path | None,
        help="true mouth openings (x.openings.parquet of a rendered video, or their folder)",
    )
    parser.add_argument(
        "--lpips-trunk",
        type=Path | None,
        help="AlexNet's weights for LPIPS; by default S2VGAN_LPIPS_TRUNK or torchvision's cache",
    )
    parser.add_argument(
        "--unseen",
        nargs="+",
        type=str,
        default=[],
        metavar="PATH",
        help="speech of other people, files or folders: measured where no true frames are needed",
    )
    parser.add_argument(
        "--metrics",
        type=str | None,
        metavar="NAMES",
        help="to measure, such as mse,ssim,mouth_r; all by default (docs/evaluation.md)",
    )
    parser.add_argument(
        "--syncnet", type=Path | None, help="TorchScript SyncNet of yours, for LSE-C and LSE-D"
    )
    parser.add_argument(
        "--identity-model", type=Path | None, help="TorchScript embedding of faces of yours"
    )
    return parser


def evaluate(arguments: Namespace) -> None:
    """Run ``s2vgan evaluate``."""
    from s2vgan.metrics import METRICS
    from s2vgan.report import evaluate_and_report
    from s2vgan.tracking import fetch_model

    with ExitStack() as held:
        evaluate_and_report(
            arguments.data,
            [
                held.enter_context(fetch_model(run)) if REGISTERED.match(run) else Path(run)
                for run in arguments.runs
            ],
            arguments.out,
            metrics=tuple(METRICS) if arguments.metrics is None else arguments.metrics.split(","),
            unseen=arguments.unseen,
            openings=arguments.openings,
            lpips_trunk=arguments.lpips_trunk,
            syncnet=arguments.syncnet,
            identity_model=arguments.identity_model,
        )
