"""Signs of a training that goes wrong: readings in, sentences out.

The limits lie between what healthy and provoked runs on the rendered head read (docs/training.md
shows them). A healthy run looks like a bad one at first, so nothing is said before ``SETTLED``
steps.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from s2vgan.config import Config
from s2vgan.losses import chance

TAG: Final = "warnings"  # of the MLflow run
SETTLED: Final = 500  # steps; healthy runs on one video follow the speech after 100 to 300
FEWEST: Final = 10  # lines of losses that D is judged by: 100 steps
SKIPPED: Final = 0.5  # share of lines in whose steps an update was skipped

WON: Final = 0.98  # mean share of groups that D tells right
EVEN: Final = 0.15  # distance of d_real + d_fake from 1, as of a D that guesses
FROZEN: Final = 0.1  # motion or change of the mouth, ratio to real
DEAF: Final = 0.1  # change of the mouth with other speech, ratio to real; mouth_r over shuffled
BLURRED, NOISY = 0.2, 3.0  # sharpness, ratio to real

# How the sentences begin about what more training does not mend: a sweep stops such a trial.
HOPELESS: Final = (
    "D has won",
    "The outputs have collapsed",
    "G ignores the speech",
    "The mouth moves, but not with the speech",
)


def find(
    config: Config,
    step: int,
    losses: Sequence[Mapping[str, float]],
    readings: Mapping[str, float],
) -> list[str]:
    """Sentences about a run, none for a healthy one; what stands before the colon names its kind.

    Args:
        config: of the run.
        step: of the evaluation.
        losses: the last lines of losses, with ``loss_d``, ``loss/gan``, ``d_real``, ``d_fake`` and
            ``skipped``.
        readings: ``val/`` readings of the evaluation.
    """
    found = _skipped(config, losses)
    if step < SETTLED:
        return found
    if config.loss.gan and len(losses) >= FEWEST:
        found += _discriminator(config, losses)
    return found + _pictures(config, readings)


def _skipped(config: Config, losses: Sequence[Mapping[str, float]]) -> list[str]:
    counts = [line["skipped"] for line in losses]
    grown = sum(after > before for before, after in zip(counts, counts[1:], strict=False))
    if grown <= SKIPPED * max(1, len(counts) - 1):
        return []
    return [
        f"Updates are skipped: {counts[-1] - counts[0]:.0f} gradients of late were not finite; "
        f"lower --train.lr_g and --train.lr_d (now {config.train.lr_g:g} and "
        f"{config.train.lr_d:g}), or set --train.amp off."
    ]


def _discriminator(config: Config, losses: Sequence[Mapping[str, float]]) -> list[str]:
    real, fake, loss = (_mean(losses, name) for name in ("d_real", "d_fake", "loss_d"))
    half = len(losses) // 2
    before, after = _mean(losses[:half], "loss/gan"), _mean(losses[half:], "loss/gan")
    if min(real, fake) > WON and after > before:
        return [
            f"D has won: it tells {real:.0%} of the real and {fake:.0%} of the generated groups "
            f"right, and G's adversarial loss climbs ({before:.2f} to {after:.2f}); lower "
            f"--train.lr_d (now {config.train.lr_d:g}), or raise --loss.l1 (now "
            f"{config.loss.l1:g}) against --loss.gan (now {config.loss.gan:g})."
        ]
    if loss >= chance(config.loss.adversarial, config.loss.wrong) and abs(real + fake - 1) < EVEN:
        return [
            f"D has learned nothing: loss_d {loss:.2f} is no better than guessing; raise "
            f"--train.lr_d (now {config.train.lr_d:g}), or lower --train.lr_g (now "
            f"{config.train.lr_g:g}) if G changes too fast for it."
        ]
    return []


def _pictures(config: Config, readings: Mapping[str, float]) -> list[str]:
    found = []
    amplitude, variation = readings["val/mouth_amplitude"], readings["val/variation"]
    effect = readings["val/audio_effect"]
    # The size of what other speech gives is that of a correlation which means nothing.
    gap = readings["val/mouth_r"] - abs(readings["val/mouth_r_shuffled"])
    if min(amplitude, variation) < FROZEN:
        found.append(
            f"The outputs have collapsed: from moment to moment they change {variation:.2f} times "
            f"as much as real mouths (opening: {amplitude:.2f} times); lower --train.lr_g (now "
            f"{config.train.lr_g:g}), or train with conf/base.yaml, whose pixel losses, mean face "
            "and pre-training prevent it."
        )
    elif effect < DEAF:
        found.append(
            f"G ignores the speech: with other speech its mouths change {effect:.2f} times as much "
            f"as real ones; raise --loss.audio (now {config.loss.audio:g}), "
            f"--train.pretrain_steps (now {config.train.pretrain_steps}) and --loss.mouth (now "
            f"{config.loss.mouth:g})."
        )
    elif gap < DEAF:
        found.append(
            f"The mouth moves, but not with the speech: mouth_r is {readings['val/mouth_r']:.2f}, "
            f"and {readings['val/mouth_r_shuffled']:.2f} with other speech; check that sound and "
            "picture of the videos are in step, then raise --loss.l1 and --loss.audio (now "
            f"{config.loss.l1:g} and {config.loss.audio:g})."
        )
    sharpness = readings["val/sharpness"]
    if sharpness > NOISY:
        found.append(
            f"The pictures are noise: they have {sharpness:.1f} times the detail of real ones; "
            f"lower --loss.gan (now {config.loss.gan:g}) or --train.lr_g (now "
            f"{config.train.lr_g:g})."
        )
    elif sharpness < BLURRED:
        found.append(
            f"The pictures are blurred: they have {sharpness:.2f} times the detail of real ones; "
            f"train for longer, or raise --loss.gan (now {config.loss.gan:g})."
        )
    return found


def _mean(lines: Sequence[Mapping[str, float]], name: str) -> float:
    return sum(line[name] for line in lines) / len(lines)
