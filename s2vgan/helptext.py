"""How ``--help`` looks, and the examples below it."""

from argparse import SUPPRESS, Action

from jsonargparse import DefaultHelpFormatter

TRAIN_EXAMPLES = """\
The defaults are conf/base.yaml, a recipe for one person and a few minutes of video or more. Try it
first. Of the settings only these are often changed: --minutes, --workers, --model.width (speed
against quality) and --train.seed.

  # half an hour on two cores; watch RUN/samples/*.mp4 and val/mouth_r while it trains
  s2vgan train --data DATA --out RUN

  # five minutes in this process, without Ray
  s2vgan train --data DATA --out RUN --minutes 5 --workers 0

  # go on with a run that ended or was stopped, up to two hours in all
  s2vgan train --data DATA --out RUN --resume --minutes 120

  # the published method; what is on the command line wins over files
  s2vgan train --data DATA --out RUN --config conf/paper.yaml --train.batch 32

docs/training.md says what to expect, what a bad run looks like, and what to change then."""


class HelpFormatter(DefaultHelpFormatter):
    """Each option with its default, without Python's types; indented lines stay as they are."""

    def _get_help_string(self, action: Action) -> str:
        text = (action.help or "").rstrip(".")
        if action.required and action.option_strings:
            return f"{text} (required)"
        if not action.option_strings or action.nargs == 0 or action.default in (None, "", SUPPRESS):
            return text
        return f"{text} (default: %(default)s)"

    def add_argument(self, action: Action) -> None:
        """Leave out --model CONFIG and its like: --config does the same, and more."""
        if action.metavar != "CONFIG":
            super().add_argument(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        super_fill, parts = super()._fill_text, text.split("\n\n")
        return "\n\n".join(
            part if part.startswith(" ") else super_fill(part, width, indent) for part in parts
        )
