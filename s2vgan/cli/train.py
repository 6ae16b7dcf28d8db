"""``s2vgan train``."""

import dataclasses
from pathlib import Path

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.helptext import TRAIN_EXAMPLES


def train_parser() -> ArgumentParser:
    """Of ``s2vgan train``."""
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
        help="Ray Train workers that share each batch, on GPUs if there are as many; by default "
        "one for each GPU of this machine, or 2; 0 trains in this process, without Ray",
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


def train(arguments: Namespace) -> None:
    """Run ``s2vgan train``."""
    config = config_of(arguments)
    from s2vgan.train import train as train_model

    run = train_model(
        config,
        arguments.data,
        arguments.out,
        arguments.workers,
        resume=arguments.resume,
        name=arguments.name,
        consent=arguments.consent,
    )
    print(f"The model is in {run / 'model'}; its samples in {run / 'samples'}.")
