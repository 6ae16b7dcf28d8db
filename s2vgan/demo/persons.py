"""The demo's people: other faces made of the one photograph.

The photograph is mirrored, its proportions are bent, and its skin, hair and background get other
colours. Nobody else's picture is needed, and the mouth, eyelids and sway work as before.

Lengths are in pixels of the photograph; x and y are its coordinates.
"""

from dataclasses import dataclass

import cv2
import numpy as np

Colour = tuple[float, float, float]

MIDDLE_X, EYES_Y, JAW_Y = 222.0, 103.0, 160.0
EDGE = 1.5  # standard deviation of the soft edges between skin, hair and background
FACE = (
    (187, 78), (205, 80), (232, 81), (260, 86), (269, 91), (271, 112), (280, 130), (279, 138),
    (268, 134), (267, 148), (260, 164), (256, 186), (226, 189), (198, 186), (187, 178), (184, 148),
    (181, 132), (175, 128), (174, 118), (181, 108),
)  # fmt: skip
HEAD = (
    (181, 132), (169, 116), (156, 99), (153, 78), (165, 57), (186, 40), (194, 27), (215, 18),
    (232, 15), (253, 18), (270, 29), (287, 44), (300, 70), (301, 95), (296, 114), (283, 132),
    (268, 134), (267, 148), (260, 164), (256, 186), (226, 189), (198, 186), (187, 178), (184, 148),
)  # fmt: skip
CLOTHES = (
    (114, 220), (114, 184), (118, 173), (125, 163), (138, 153), (160, 148), (184, 147), (187, 178),
    (226, 189), (256, 173), (274, 184), (290, 200), (298, 220),
)  # fmt: skip
MOUTH = (200, 133), (247, 136), (240, 152), (224, 155), (208, 152)
EYES = (190, 96), (226, 97), (261, 98), (261, 110), (226, 109), (190, 108)


@dataclass(frozen=True)
class Person:
    """How a person differs from the photograph. Colours are factors of red, green and blue.

    Attributes:
        mirrored: left and right change places.
        width: of the head.
        jaw: of the jaw, besides.
        length: of the face below the eyes.
        skin: colour of skin; teeth and the whites of the eyes keep theirs.
        hair: colour of hair.
        background: colour behind the head.
    """

    mirrored: bool = False
    width: float = 1.0
    jaw: float = 1.0
    length: float = 1.0
    skin: Colour = (1.0, 1.0, 1.0)
    hair: Colour = (1.0, 1.0, 1.0)
    background: Colour = (1.0, 1.0, 1.0)

    def coloured(self, photo: np.ndarray, scale: float, left: float, top: float) -> np.ndarray:
        """The photograph in the person's colours.

        Args:
            photo: (H, W, 3) float32 RGB, a part of the photograph.
            scale: its pixels in one of the photograph.
            left: x of its left edge.
            top: y of its upper edge.
        """
        if self == Person():
            return photo

        def inside(outline: tuple[tuple[int, int], ...]) -> np.ndarray:
            corners = (np.array(outline, np.float32) - (left, top)) * scale
            mask = np.zeros(photo.shape[:2], np.float32)
            cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1.0)
            return cv2.GaussianBlur(mask, (0, 0), EDGE * scale)[..., None]

        face, head = inside(FACE), inside(HEAD)
        white = 1 - np.clip((photo[..., :1] - photo[..., 2:] - 12) / 25, 0, 1)
        white = white * np.maximum(inside(MOUTH), inside(EYES))
        shares = {
            self.skin: face * (1 - white),
            self.hair: np.clip(head - face, 0, 1),
            self.background: (1 - head) * (1 - inside(CLOTHES)),
        }
        for colour, share in shares.items():
            photo = photo * (1 + share * (np.array(colour, np.float32) - 1))
        return photo

    def source(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where in the photograph a place of the person's picture comes from."""
        if self == Person():
            return x, y
        below = np.clip((y - EYES_Y) / (JAW_Y - EYES_Y), 0, 1)
        width = self.width * (1 + (self.jaw - 1) * below)
        across = (x - MIDDLE_X) / width
        down = np.where(y > EYES_Y, (y - EYES_Y) / self.length + EYES_Y, y)
        return (
            (MIDDLE_X + (-across if self.mirrored else across)).astype(np.float32),
            down.astype(np.float32),
        )


PERSONS = (
    Person(),
    Person(True, 0.92, 0.94, 1.05, (0.62, 0.5, 0.42), (0.3, 0.28, 0.32), (0.55, 0.75, 0.95)),
    Person(False, 1.08, 1.06, 0.96, (1.04, 0.9, 0.84), (1.1, 0.62, 0.45), (0.72, 0.9, 0.62)),
    Person(True, 1.02, 0.9, 1.08, (0.84, 0.72, 0.6), (0.62, 0.62, 0.75), (1.0, 0.72, 0.66)),
)
