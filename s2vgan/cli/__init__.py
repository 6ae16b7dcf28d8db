"""The command line: ``s2vgan demo | data | train | evaluate | speak | ...``; COMMANDS has them all.

What a command needs is imported when it runs: ``s2vgan --help`` answers at once.
"""

import os
import sys
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser, Namespace

from s2vgan import __version__
from s2vgan.cli import data, evaluate, models, speak, train
from s2vgan.cli.train import config_of
from s2vgan.errors import S2VError
from s2vgan.helptext import HelpFormatter

__all__ = ["COMMANDS", "config_of", "main"]

COMMANDS: dict[str, tuple[Callable[[], ArgumentParser], Callable[[Namespace], int | None]]] = {
    "demo": (data.demo_parser, data.demo),
    "data": (data.data_parser, data.data),
    "train": (train.train_parser, train.train),
    "evaluate": (evaluate.evaluate_parser, evaluate.evaluate),
    "speak": (speak.speak_parser, speak.speak),
    "detect": (speak.detect_parser, speak.detect),
    "export": (models.export_parser, models.export),
    "lineage": (models.lineage_parser, models.lineage),
    "mlflow": (models.mlflow_parser, models.mlflow),
}


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
