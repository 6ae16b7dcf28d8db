"""The command line: ``s2vgan demo | data | train | evaluate | speak | detect | mlflow``.

What a command needs is imported when it runs: ``s2vgan --help`` answers at once.
"""

import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from s2vgan import __version__
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import S2VError
from s2vgan.helptext import TRAIN_EXAMPLES, HelpFormatter

REGISTERED = re.compile("(models|runs):/")
MODEL_HELP = (
    "a run folder (its latest model), RUN/best or another model folder, or a registered model such "
    "as models:/s2vgan@champion"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        The exit status: 0; 1 if ``detect`` finds no watermark; 2 for what the user can mend; 130
        after Ctrl-C; 141 if who reads the output went away.
    """
    parser = ArgumentParser(
        prog="s2vgan",
        description="Turn speech into a talking face.",
        version=__version__,
        formatter_class=HelpFormatter,  # which its commands take over
    )
    commands = parser.add_subcommands(dest="command", required=True)
    for name, (make_parser, _) in COMMANDS.items():
        part = make_parser()
        commands.add_subcommand(name, part, help=(part.description or "").split(".")[0])
    arguments = parser.parse_args(argv)
    run = COMMANDS[arguments.command][1]
    try:
        status = run(arguments[arguments.command])
        sys.stdout.flush()
    except BrokenPipeError:  # its reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except S2VError as error:
        print(f"s2vgan: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None:
            raise
        print(f"s2vgan: {error.filename}: {error.strerror}; check the path.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("s2vgan: interrupted.", file=sys.stderr)
        return 130
    return status or 0


def _demo_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Render a talking head whose every mouth is known. Writes talk.mp4, its true "
        "mouth openings, and speech.wav with sentences that the video does not hold."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seconds", type=float, default=240.0, help="length of the video")
    parser.add_argument("--speaker", type=int, default=0, help="0 to 3: voice, pitch, speed, tint")
    parser.add_argument("--person", type=int, default=0, help="0 to 3: whose face it is")
    parser.add_argument("--seed", type=int, default=0, help="of sentences, sway and blinks")
    return parser


def _demo(arguments: Namespace) -> None:
    from s2vgan.demo import UNHEARD, render, synthesize_speech
    from s2vgan.media import write_wav

    rendered = render(
        arguments.out / "talk.mp4",
        arguments.speaker,
        arguments.seconds,
        arguments.seed,
        person=arguments.person,
    )
    speech, _ = synthesize_speech(UNHEARD, arguments.speaker)
    write_wav(arguments.out / "speech.wav", speech)
    print(f"{rendered.video}\n{rendered.openings}\n{arguments.out / 'speech.wav'}")


def _data_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Show a dataset: its summary, and a page of its crops over time. The page "
        "opens offline; a mean face that is sharp tells that the crops are well aligned."
    )
    parser.add_argument("data", type=str, help="dataset folder or URL")
    parser.add_argument(
        "--sheet", type=str | None, help="page to write; by default DATA/contact_sheet.html"
    )
    parser.add_argument("--videos", type=int, default=40, help="that get crops on the page")
    parser.add_argument("--no-sheet", action="store_true", help="print the summary only")
    return parser


def _data(arguments: Namespace) -> None:
    from s2vgan import overview

    if arguments.no_sheet:
        print(overview.describe(arguments.data))
    else:
        overview.show(arguments.data, arguments.sheet, arguments.videos)


def _train_parser() -> ArgumentParser:
    parser = ArgumentParser(
        usage="s2vgan train --data DATA --out RUN [--minutes MINUTES] [--config FILE] [settings]",
        description="Train a model on a dataset. The dataset is what pipelines/extract.py wrote; "
        "the model is in RUN/model from the first evaluation on, the best so far in RUN/best. "
        "Ctrl-C ends a run with a checkpoint, --resume goes on with it.",
        epilog=TRAIN_EXAMPLES,
    )
    where = parser.add_argument_group("What to train on, and where to")
    where.add_argument("--data", type=str, required=True, help="dataset folder or URL")
    where.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder of the run, made if missing"
    )
    where.add_argument(
        "--name", type=str, default="", help="of the run in MLflow; by default its folder's"
    )
    where.add_argument(
        "--consent",
        type=str,
        default="",
        help="who agreed that their face is learned and shown, and how; told by the model's card "
        "and by all that it makes",
    )
    where.add_argument(
        "--resume", action="store_true", help="go on from the latest checkpoint in RUN"
    )
    budget = parser.add_argument_group("For how long, and with what")
    budget.add_argument(
        "--minutes", type=float, help="of training in all; short for --train.minutes"
    )
    budget.add_argument(
        "--steps",
        type=int,
        help="of training in all; short for --train.steps, and without --minutes no clock ends it",
    )
    budget.add_argument(
        "--workers",
        type=int,
        default=2,
        help="Ray Train workers that share each batch, on GPUs if there are as many; 0 trains in "
        "this process, without Ray",
    )
    parser.add_argument(
        "--config",
        action=ActionConfigFile,
        metavar="FILE",
        help="YAML file with settings, such as conf/paper.yaml; may be given several times, and "
        "the later wins",
    )
    for kind, name in ((ModelConfig, "model"), (LossConfig, "loss"), (TrainConfig, "train")):
        parser.add_class_arguments(kind, name)
    return parser


def config_of(arguments: Namespace) -> Config:
    """The configuration in parsed arguments of ``train``.

    Raises:
        ConfigError: if a value is out of range or two contradict.
    """
    train = TrainConfig(**vars(arguments.train))
    if arguments.minutes is not None:
        train = dataclasses.replace(train, minutes=arguments.minutes)
    if arguments.steps is not None:
        minutes = train.minutes if arguments.minutes is not None else 0.0
        train = dataclasses.replace(train, steps=arguments.steps, minutes=minutes)
    model, loss = ModelConfig(**vars(arguments.model)), LossConfig(**vars(arguments.loss))
    return Config(model, loss, train)


def _train(arguments: Namespace) -> None:
    config = config_of(arguments)
    from s2vgan.train import train

    run = train(
        config,
        arguments.data,
        arguments.out,
        arguments.workers,
        resume=arguments.resume,
        name=arguments.name,
        consent=arguments.consent,
    )
    print(f"The model is in {run / 'model'}; its samples in {run / 'samples'}.")


def _evaluate_parser() -> ArgumentParser:
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
    return parser


def _evaluate(arguments: Namespace) -> None:
    from s2vgan.report import evaluate_and_report
    from s2vgan.tracking import fetch_model

    evaluate_and_report(
        arguments.data,
        [fetch_model(run) if REGISTERED.match(run) else Path(run) for run in arguments.runs],
        arguments.out,
        openings=arguments.openings,
        lpips_trunk=arguments.lpips_trunk,
    )


def _speak_parser() -> ArgumentParser:
    parser = ArgumentParser(description="Make a video of the face that says a piece of speech.")
    parser.add_argument("--model", type=str, required=True, help=MODEL_HELP)
    parser.add_argument(
        "--audio", type=Path, required=True, help="speech: WAV, FLAC, OGG, MP3, or a video's sound"
    )
    parser.add_argument("--out", type=Path, required=True, help="MP4 file to write")
    parser.add_argument(
        "--pose",
        type=str | None,
        metavar="VIDEO",
        help="video of the person whose head moves as the made one shall (dubbing); without it the "
        "head is held still",
    )
    parser.add_argument(
        "--reference",
        type=str | None,
        metavar="WHO",
        help="who speaks, for a model with model.identity: a picture of a face, or the id of a "
        "video it was trained on; by default the first of these",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    parser.add_argument("--scale", type=int, default=4, help="whole-number enlargement")
    parser.add_argument("--device", type=str, default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--no-label", action="store_true", help="leave the visible label out; the watermark stays"
    )
    parser.add_argument(
        "--no-credentials", action="store_true", help="do not sign with C2PA content credentials"
    )
    return parser


def _speak(arguments: Namespace) -> None:
    from tqdm import tqdm

    from s2vgan.driving import read_pose
    from s2vgan.media import read_audio, write_video
    from s2vgan.portrait import read_portrait
    from s2vgan.provenance import Marker, Origin, sign_file
    from s2vgan.synthesis import Synthesizer, enlarge
    from s2vgan.tracking import fetch_model

    registered = REGISTERED.match(arguments.model)
    synthesizer = Synthesizer.load(fetch_model(arguments.model), arguments.device)
    spec = synthesizer.spec
    origin = Origin.of(synthesizer.manifest, arguments.model if registered else "")
    marker = Marker(label=not arguments.no_label, fps=spec.fps)
    speech = read_audio(arguments.audio, spec.sample_rate)
    reference = None
    if arguments.reference is not None:
        reference = synthesizer.person(arguments.reference)
        if reference is None:
            reference = read_portrait(arguments.reference, spec)
    pose = None
    if arguments.pose is not None:
        pose = read_pose(synthesizer, arguments.pose, len(speech) / spec.sample_rate, reference)
        if len(pose) * spec.sample_rate < len(speech) * spec.fps:
            print(
                f"{arguments.pose}: ends after {len(pose) / spec.fps:.1f} s; its last pose is held."
            )
    blocks = synthesizer.blocks(speech, arguments.seed, pose, reference)
    frames = (frame for block in blocks for frame in block)
    large = enlarge(tqdm(frames, desc="speaking", unit="frame", mininterval=1), arguments.scale)
    tags = origin.metadata()
    unsigned = arguments.out.with_name(f".{arguments.out.name}.unsigned.mp4")
    try:
        write_video(unsigned, marker.mark(large), spec.fps, speech, spec.sample_rate, metadata=tags)
        if not arguments.no_credentials:
            sign_file(unsigned, origin, arguments.out.name)
        unsigned.replace(arguments.out)
    finally:
        unsigned.unlink(missing_ok=True)
    print(f"{arguments.out}: {len(speech) / spec.sample_rate:.1f} s of speech. {origin.consented}")


def _detect_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Say whether a video was made by S2V-GAN: the watermark of the key "
        "S2VGAN_WATERMARK_KEY (or the public one), the container's tags, and C2PA content "
        "credentials. Exits with 0 if the watermark is found, 1 if not, 2 if it cannot be told."
    )
    parser.add_argument("file", type=Path, help="video of 1 s or more")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _detect(arguments: Namespace) -> int:
    from s2vgan.provenance import Provenance, watermark_key

    told = Provenance.read(arguments.file, watermark_key())
    print(json.dumps(told.to_dict()) if arguments.json else told.describe())
    return 0 if told.watermark.found else 1


def _mlflow_parser() -> ArgumentParser:
    parser = ArgumentParser(
        description="Show the tracked runs and models in MLflow's pages. With --deliver, tell "
        "MLflow what it missed of a run."
    )
    parser.add_argument("--port", type=int, default=5000, help="to listen on, on this machine only")
    parser.add_argument(
        "--deliver", type=Path | None, metavar="RUN", help="a run that MLflow was not told all of"
    )
    return parser


def _mlflow(arguments: Namespace) -> None:
    from s2vgan.tracking import deliver, serve_ui, tracking_uri

    if arguments.deliver:
        run_id = deliver(arguments.deliver)
        print(f"MLflow at {tracking_uri()} knows {arguments.deliver} as run {run_id}.")
        return
    serve_ui(arguments.port)


COMMANDS: dict[str, tuple[Callable[[], ArgumentParser], Callable[[Namespace], int | None]]] = {
    "demo": (_demo_parser, _demo),
    "data": (_data_parser, _data),
    "train": (_train_parser, _train),
    "evaluate": (_evaluate_parser, _evaluate),
    "speak": (_speak_parser, _speak),
    "detect": (_detect_parser, _detect),
    "mlflow": (_mlflow_parser, _mlflow),
}


if __name__ == "__main__":
    sys.exit(main())
