"""A picture of a person to the frame that stands for that person, as extraction would cut it."""

from pathlib import Path

import cv2
import numpy as np

from s2vgan.crops import plan_crops
from s2vgan.errors import SourceError
from s2vgan.faces import FaceTracker
from s2vgan.spec import GroupSpec

VIEWS = 25  # as of a video that stands still: the tracker's boxes differ from those of one look


def read_portrait(path: str | Path, spec: GroupSpec) -> np.ndarray:
    """The face in a picture, the largest if there are several.

    A picture of exactly S x S pixels is taken as it is: it is a frame already.

    Args:
        path: of a picture, such as PNG or JPEG.
        spec: of the groups; its crop is how the face is cut out.

    Returns:
        (S, S, 3) uint8 RGB.

    Raises:
        SourceError: if the file is missing or no picture, or if there is no face in it.
    """
    if not Path(path).is_file():
        raise SourceError(f"{path}: no such picture.")
    try:
        picture = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # of absurd size
        raise SourceError(f"{path}: cannot be read as a picture; use a PNG or JPEG.") from error
    if picture is None:
        raise SourceError(f"{path}: not a picture that can be read; use a PNG or JPEG.")
    height, width = picture.shape[:2]
    if (height, width) == (spec.size, spec.size):
        return picture
    luma, tracker = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), FaceTracker("largest")
    boxes = [box for _ in range(VIEWS) if (box := tracker.update(luma)) is not None]
    if not boxes:
        raise SourceError(
            f"{path}: no face is found in it; use a picture of a face from the front, or a frame "
            f"of {spec.size} x {spec.size} pixels."
        )
    found, cuts = np.ones(len(boxes), bool), np.zeros(len(boxes), bool)
    plan = plan_crops(np.stack(boxes), found, cuts, spec.crop, width, height)
    x, y, across, down = plan.boxes[len(boxes) // 2].tolist()
    way = cv2.INTER_AREA if min(across, down) >= spec.size else cv2.INTER_LINEAR
    face = picture[y : y + down, x : x + across]
    return cv2.resize(face, (spec.size, spec.size), interpolation=way)
