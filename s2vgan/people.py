"""The people of a dataset: each video is one person, and one of its frames stands for that person.

Only models with ``model.identity`` ask for them. Two videos of one person are two people here: the
dataset does not say who is in a video.
"""

import dataclasses

import numpy as np
import torch

from s2vgan.dataset import GroupDataset
from s2vgan.models import find_reference

REFERENCE_FRAMES = 150  # of a video's training time, among which the reference frame is chosen
STORED = 64  # people whose reference frames are stored with a model


def with_references(dataset: GroupDataset, rows: np.ndarray) -> GroupDataset:
    """The same dataset with the reference frame of each video.

    A reference frame follows from the dataset and the rows alone: a resumed run finds the same.

    Args:
        dataset: to take frames from.
        rows: of training time, at least one of each video.
    """
    per_group = dataset.spec.frames_per_group
    found = np.empty((len(dataset.video_ids), *dataset.spec.frame_shape[1:]), np.uint8)
    for video in range(len(found)):
        own = rows[dataset.video[rows] == video]
        count = min(len(own), REFERENCE_FRAMES // per_group)
        frames = dataset.frames[own[np.linspace(0, len(own) - 1, count).astype(int)]]
        frames = frames.reshape(-1, *frames.shape[2:])
        pixels = torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1
        found[video] = frames[find_reference(pixels)]
    return dataclasses.replace(dataset, references=found)


def stored_people(dataset: GroupDataset) -> np.ndarray:
    """Numbers of the videos whose reference frames are stored with a model, evenly chosen."""
    count = len(dataset.video_ids)
    return np.linspace(0, count - 1, min(count, STORED)).astype(int)
