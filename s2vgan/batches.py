"""Which sequences of a dataset each step trains on, and the batch that they make."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from s2vgan.config import Config, TrainConfig
from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError


@dataclass(frozen=True)
class Batch:
    """One step's work of one rank: B sequences of K groups.

    Attributes:
        audio: (B, K, L) float32 windows of speech in [-1, 1).
        frames: (B, K * T, 3, S, S) float32 in [-1, 1].
        reference: (B, 3, S, S) float32 in [-1, 1], the frame that stands for who is in each; None
            where the model has no identity.
    """

    audio: Tensor
    frames: Tensor
    reference: Tensor | None = None

    @classmethod
    def gather(
        cls, dataset: GroupDataset, rows: np.ndarray, config: Config, device: torch.device
    ) -> "Batch":
        """The batch of (B, K) dataset rows."""
        return Reading.of(dataset, rows, config, device).batch(device)


@dataclass(frozen=True)
class Reading:
    """What a batch is made of, read from the dataset and not on its device yet.

    Attributes:
        audio: as in the batch.
        frames: (B, K, T, S, S, 3) uint8.
        reference: (B, S, S, 3) uint8, or None as in the batch.
    """

    audio: Tensor
    frames: Tensor
    reference: Tensor | None = None

    @classmethod
    def of(
        cls, dataset: GroupDataset, rows: np.ndarray, config: Config, device: torch.device
    ) -> "Reading":
        """Read (B, K) dataset rows, into pinned memory where the batch is to be on a GPU.

        A model with an identity wants a dataset of :func:`s2vgan.people.with_references`.
        """
        model = config.model
        audio = torch.from_numpy(dataset.windows(rows, model.audio_past, model.audio_ahead))
        frames = torch.from_numpy(dataset.frames[rows])
        reference = None
        if model.identity:
            assert dataset.references is not None
            reference = torch.from_numpy(dataset.references[dataset.video[rows[:, 0]]])
        if device.type == "cuda":
            audio, frames = audio.pin_memory(), frames.pin_memory()
            reference = None if reference is None else reference.pin_memory()
        return cls(audio, frames, reference)

    def batch(self, device: torch.device) -> Batch:
        """The batch on its device."""
        audio = self.audio.to(device, non_blocking=True)
        frames = self.frames.to(device, non_blocking=True).flatten(1, 2).movedim(-1, 2)
        if device.type == "cpu":  # pixel losses are faster on whole planes there
            frames = frames.contiguous()
        reference = None
        if self.reference is not None:
            pixels = self.reference.to(device, non_blocking=True).movedim(-1, 1)
            reference = pixels.float() / 127.5 - 1
        return Batch(audio, frames.float() / 127.5 - 1, reference)


@dataclass(frozen=True)
class Sampler:
    """Which sequences each step trains on: a shuffled pass after another, without any state.

    A video's part of a pass goes with its length to the power of ``balance``, so that one long
    video need not drown many short ones. A pass over one video, or over videos of one length, holds
    each sequence once.

    Attributes:
        sequences: (M, K) rows of the dataset, video after video.
        batch: sequences a step over all ranks.
        seed: of the shuffles.
        video: (M,) number of each sequence's video; by default all are of one.
        balance: 1: videos count by their length; 0: all videos count the same.
    """

    sequences: np.ndarray
    batch: int
    seed: int
    video: np.ndarray | None = None
    balance: float = 0.5
    _passes: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.sequences) < self.batch:
            raise DatasetError(
                f"the training time holds {len(self.sequences)} sequences of "
                f"{self.sequences.shape[1]} groups, fewer than one batch of {self.batch}: lower "
                "train.batch or train.sequence, or extract more video."
            )

    @classmethod
    def over(cls, dataset: GroupDataset, rows: np.ndarray, train: TrainConfig) -> "Sampler":
        """Of all sequences of the training time ``rows``, or of one in each stride.

        The seconds of a video are cut into strides; of each it is the sequence whose first group
        holds the middle. Which they are depends on the dataset alone: a resumed run finds the same.
        """
        sequences, spec = dataset.sequences(rows, train.sequence), dataset.spec
        if train.stride:
            first = dataset.index[sequences[:, 0]]
            edges = np.stack([first, first + 1]) * spec.samples_per_group / spec.sample_rate
            start, end = np.ceil(edges / train.stride - 0.5)  # middles before each edge
            sequences = sequences[end > start]
        video = dataset.video[sequences[:, 0]]
        batch = train.batch // train.sequence
        return cls(sequences, batch, train.seed, video, train.balance)

    def rows(self, step: int, rank: int, world: int) -> np.ndarray:
        """(batch / world, K) rows of a step's share."""
        share = self.batch // world
        positions = step * self.batch + rank * share + np.arange(share)
        epochs, places = np.divmod(positions, self._quotas.sum())
        chosen = np.empty(share, np.int64)
        for epoch in np.unique(epochs):
            chosen[epochs == epoch] = self._pass(int(epoch))[places[epochs == epoch]]
        return self.sequences[chosen]

    @cached_property
    def _lengths(self) -> np.ndarray:
        """(V,) sequences of each video that has any."""
        if self.video is None:
            return np.array([len(self.sequences)])
        return np.unique_counts(self.video).counts

    @cached_property
    def _quotas(self) -> np.ndarray:
        """(V,) sequences of each video in a pass; about M in all."""
        weights = self._lengths**self.balance
        return np.rint(len(self.sequences) * weights / weights.sum()).astype(np.int64).clip(1)

    def _pass(self, epoch: int) -> np.ndarray:
        """Places in ``sequences``, in the order of a pass; kept, since shuffling takes time."""
        if epoch not in self._passes:
            parts = []
            starts = np.cumsum(self._lengths) - self._lengths
            for number, (start, length, quota) in enumerate(
                zip(starts, self._lengths, self._quotas, strict=True)
            ):
                draws = np.arange(epoch * quota, (epoch + 1) * quota) % length
                if quota != length:  # a stretch of time would be one-sided
                    draws = np.random.default_rng([self.seed, 2, number]).permutation(length)[draws]
                parts.append(start + draws)
            places = np.concatenate(parts)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(places))
            while len(self._passes) > 1:  # ranks and steps are near each other
                del self._passes[min(self._passes)]
            self._passes[epoch] = places[order]
        return self._passes[epoch]
