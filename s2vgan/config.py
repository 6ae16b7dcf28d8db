"""The configuration of a run: frozen dataclasses in code, YAML and the command line at the edge.

The defaults are ``conf/base.yaml``; ``conf/paper.yaml`` switches every addition to the published
method off. Each addition is one key.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from s2vgan.errors import ConfigError

MAX_SEED: Final = 2**63 - 1  # as in the service's requests; PyTorch takes no more than 64 bits

# What wav2pix has none of, or only one form of. Settings of the ConvGRU mean nothing to it, as they
# mean nothing to no_gru.
WAV2PIX_SETTINGS: dict[str, Any] = {
    "z_dim": 0,
    "audio_features": "waveform",
    "audio_dropout": 0.0,
    "mean_face": False,
    "pose_dim": 0,
    "identity": False,
    "spectral_norm": True,
}


@dataclass(frozen=True)
class ModelConfig:
    """Generator, discriminator and audio encoder.

    Attributes:
        kind: gru: ConvGRU in generator and discriminator; no_gru: neither (the ablation);
            wav2pix: the baseline of Duarte et al. 2019, which makes single frames.
        z_dim: length of the noise vector z, drawn once per group; 0 for none.
        width: channels of the widest-resolution trunk block; doubled at each coarser block.
        audio_features: what the audio encoder reads: the raw waveform or a log-mel spectrogram.
        audio_past: seconds of speech before the group that the encoder also sees; of wav2pix
            before the middle of each frame.
        audio_ahead: seconds after it; a stream is late by as much.
        audio_dim: length of the audio code.
        audio_dropout: dropout in the audio encoder.
        frame_features: what the ConvGRU reads at each of its steps: the same (shared) features,
            or an (own) slice of channels per frame.
        initial_state: of the ConvGRU: zero, or the mean face (with identity the reference frame).
        carry_state: carry the ConvGRU's state from group to group, and train on sequences.
        mean_face: learn a mean face, added to every frame before tanh.
        pose_dim: length of the pose code (principal components of the upper face); 0 for none.
        identity: a reference frame of the person as a condition: one model for several people.
            The mean face, where there is one, is then the reference frame.
        discriminator_gru_after: convolutions of the discriminator before its ConvGRU; 0 as
            published, where the ConvGRU reads the frames themselves.
        discriminator_state: channels of the state of the discriminator's ConvGRU.
        spectral_norm: spectral normalisation of D's strided convolutions instead of BatchNorm.
    """

    kind: Literal["gru", "no_gru", "wav2pix"] = "gru"
    z_dim: int = 16
    width: int = 32
    audio_features: Literal["waveform", "logmel"] = "logmel"
    audio_past: float = 0.3
    audio_ahead: float = 0.1
    audio_dim: int = 128
    audio_dropout: float = 0.2
    frame_features: Literal["shared", "own"] = "own"
    initial_state: Literal["zero", "mean_face"] = "mean_face"
    carry_state: bool = True
    mean_face: bool = True
    pose_dim: int = 8
    identity: bool = False
    discriminator_gru_after: int = 2
    discriminator_state: int = 32
    spectral_norm: bool = True

    def __post_init__(self) -> None:
        _one_of("model.kind", self.kind, ("gru", "no_gru", "wav2pix"))
        _one_of("model.audio_features", self.audio_features, ("waveform", "logmel"))
        _one_of("model.frame_features", self.frame_features, ("shared", "own"))
        _one_of("model.initial_state", self.initial_state, ("zero", "mean_face"))
        _at_least("model.z_dim", self.z_dim, 0)
        _at_least("model.width", self.width, 4)
        _at_least("model.audio_dim", self.audio_dim, 1)
        _at_least("model.pose_dim", self.pose_dim, 0)
        _at_least("model.discriminator_gru_after", self.discriminator_gru_after, 0)
        _at_least("model.discriminator_state", self.discriminator_state, 1)
        _between("model.audio_dropout", self.audio_dropout, 0, 0.9)
        _between("model.audio_past", self.audio_past, 0, 2)
        _between("model.audio_ahead", self.audio_ahead, 0, 2)
        if self.initial_state == "mean_face" and not self.mean_face:
            raise ConfigError(
                "model.initial_state is mean_face but model.mean_face is false; "
                "set model.mean_face to true or model.initial_state to zero."
            )
        if self.kind == "wav2pix":
            _as_published("model", self, WAV2PIX_SETTINGS)
            if self.audio_past + self.audio_ahead < 0.1:
                raise ConfigError(
                    "model.kind wav2pix hears model.audio_past + model.audio_ahead seconds around "
                    "each frame, which must be 0.1 or more; both are 0.5 as published."
                )


@dataclass(frozen=True)
class LossConfig:
    """The losses and their weights; a weight of 0 switches a term off.

    Attributes:
        adversarial: form of the GAN objective: bce (Goodfellow et al. 2014, non-saturating),
            hinge (Lim and Ye 2017), or lsgan (Mao et al. 2017, real frames labelled 0.9).
        wrong: weight, for the discriminator, of real frames with the speech of another moment.
        gan: weight of the generator's adversarial term.
        features: weight of matching the batch means of the discriminator's features.
        l1: weight of the mean absolute error, on [-1, 1].
        ssim: weight of 1 - SSIM.
        seam: weight of the mean absolute error of the change from one group to the next.
        mouth: factor on l1, ssim and seam inside the mouth region; 1 treats all pixels alike.
        audio: weight of predicting the mouth's code from the audio code.
    """

    adversarial: Literal["bce", "hinge", "lsgan"] = "hinge"
    wrong: float = 0.0
    gan: float = 0.02
    features: float = 0.0
    l1: float = 1.0
    ssim: float = 0.3
    seam: float = 1.0
    mouth: float = 3.0
    audio: float = 0.3

    def __post_init__(self) -> None:
        _one_of("loss.adversarial", self.adversarial, ("bce", "hinge", "lsgan"))
        for item in dataclasses.fields(self):
            if item.name != "adversarial":
                _at_least(f"loss.{item.name}", getattr(self, item.name), 0)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation, budget and what is written when.

    Attributes:
        lr_g: learning rate of the generator and the audio encoder.
        lr_d: learning rate of the discriminator.
        beta1: of Adam, for both.
        beta2: of Adam, for both.
        batch: groups a step over all workers (batch / sequence sequences).
        sequence: consecutive groups the state is carried over in one step.
        stride: seconds of video between the sequences that are trained on; 0 for all of them.
        balance: a video counts by its length to this power: 1 by its length, 0 all the same.
        steps: of training in all; the budget in minutes may end it earlier.
        minutes: of training in all, 0 for no limit.
        pretrain_steps: of the audio encoder alone, before step 0.
        ema: decay of the generator's exponential moving average; 0 for none.
        clip: largest norm of a gradient; 0 for no limit.
        gain: largest change of a sequence's loudness in dB, up or down, so that the level of a
            recording counts less; 0 for none.
        held_out: share of each video's time, at its end, that training never sees.
        evaluate_every: steps between evaluations; each writes a checkpoint and samples.
        amp: mixed precision: off, bf16 autocast, or auto for bf16 where the processor has it.
        compile: G and D by torch.compile, which takes minutes at the start; for GPUs.
        seed: of weights, batches and noise, 0 to 2^63 - 1.
    """

    lr_g: float = 2e-4
    lr_d: float = 2e-4
    beta1: float = 0.5
    beta2: float = 0.999
    batch: int = 16
    sequence: int = 2
    stride: float = 0.0
    balance: float = 0.5
    steps: int = 100_000
    minutes: float = 30.0
    pretrain_steps: int = 300
    ema: float = 0.995
    clip: float = 10.0
    gain: float = 0.0
    held_out: float = 0.15
    evaluate_every: int = 250
    amp: Literal["auto", "off", "bf16"] = "auto"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "sequence", "steps", "evaluate_every"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("lr_g", "lr_d", "stride", "minutes", "pretrain_steps", "clip"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        _between("train.gain", self.gain, 0, 40)
        _between("train.seed", self.seed, 0, MAX_SEED)
        for name in ("beta1", "beta2"):
            _between(f"train.{name}", getattr(self, name), 0, 0.99999)
        _one_of("train.amp", self.amp, ("auto", "off", "bf16"))
        _between("train.balance", self.balance, 0, 1)
        _between("train.ema", self.ema, 0, 1)
        _between("train.held_out", self.held_out, 0.01, 0.9)
        if self.batch % self.sequence:
            raise ConfigError(
                f"train.batch {self.batch} is not a multiple of train.sequence {self.sequence}; "
                "change one of them."
            )


@dataclass(frozen=True)
class Config:
    """Everything that decides a run; stored with its model."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.train.sequence > 1 and not self.model.carry_state:
            raise ConfigError(
                "train.sequence is above 1 but model.carry_state is false: set train.sequence "
                "to 1 and loss.seam to 0, or model.carry_state to true."
            )
        if self.loss.seam and self.train.sequence == 1:
            raise ConfigError(
                "loss.seam is of the change from one group to the next, and train.sequence is 1: "
                "raise train.sequence or set loss.seam to 0."
            )
        if self.loss.wrong and self.train.batch == self.train.sequence:
            raise ConfigError(
                "loss.wrong needs a second sequence in the batch to take wrong speech from: raise "
                "train.batch or set loss.wrong to 0."
            )
        if self.model.kind == "wav2pix":
            _as_published("loss", self.loss, {"audio": 0.0})
            _as_published("train", self.train, {"pretrain_steps": 0})

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: if a key is unknown (it is named).
        """
        parts: dict[str, Any] = {}
        kinds = {"model": ModelConfig, "loss": LossConfig, "train": TrainConfig}
        for section, content in values.items():
            if section not in kinds:
                raise ConfigError(f"unknown key {section!r}; known: {', '.join(kinds)}.")
            known = {item.name for item in dataclasses.fields(kinds[section])}
            for key in content:
                if key not in known:
                    raise ConfigError(
                        f"unknown key {section}.{key}; known: {', '.join(sorted(known))}."
                    )
            parts[section] = kinds[section](**content)
        return cls(**parts)


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names such as ``train.seed`` of the settings that differ, of two :meth:`Config.to_dict`."""
    return [
        f"{section}.{key}"
        for section, values in new.items()
        for key, value in values.items()
        if old.get(section, {}).get(key) != value
    ]


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ConfigError(f"{name} is {value}; it must be at least {least}.")


def _between(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}; it must lie between {low} and {high}.")


def _as_published(section: str, values: Any, settings: dict[str, Any]) -> None:
    """Refuse settings that wav2pix would silently do without."""
    changes = [
        f"{section}.{key} to {str(value).lower()}"
        for key, value in settings.items()
        if getattr(values, key) != value
    ]
    if changes:
        raise ConfigError(
            f"model.kind wav2pix is built as published: set {', '.join(changes)}, or give --config "
            "conf/ablations/wav2pix.yaml, which does."
        )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; use {' or '.join(known)}.")
