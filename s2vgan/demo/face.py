"""The demo's face: a photograph whose mouth, eyelids and head can be moved.

The photograph is ``skimage.data.astronaut()`` (NASA, public domain). It smiles with its teeth
showing, which is what makes a mouth possible: the lips are warped together over the teeth, and
when they part, the teeth that appear between them are the photograph's own, standing still with
the upper jaw as teeth do. Behind them lie a dark cavity and a tongue that moves with the lower jaw.

Lengths are in pixels of the photograph. ``v`` is the height below the line through the corners of
the mouth, ``u`` the place along that line, from -1 to 1 between the corners.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from s2vgan.demo.persons import PERSONS, Person
from s2vgan.errors import ConfigError, S2VError

CROP_X, CROP_Y, CROP = 114.0, 2.0, 216.0  # square of the photograph that is shown
OVERSAMPLING = 1.5  # the face is composed larger than shown, so that sway does not blur it twice

MOUTH_X, MOUTH_Y, MOUTH_TILT = 223.3, 140.05, 0.036  # middle of the line through the corners
HALF_WIDTH = 21.0
CHEEK = 40.0  # distance from the middle of the mouth where the lips' sideways pull ends
UPPER_LIP, LOWER_LIP = 3.8, 9.6  # inner edges of the photograph's lips at u = 0, as v
CLOSED = 5.9  # v at which they meet
NOSE, CHIN = -6.0, 25.0  # v where the lips' motion has died out; CHIN itself moves with the jaw
NECK = 36.0, 58.0  # v between which the jaw's motion dies out
MAX_OPENING = 12.5  # distance of the lips at opening 1
CAVITY = (44.0, 16.0, 18.0)
TONGUE = (168.0, 84.0, 84.0)
EYES = (
    # line through the corners: middle x, y, tilt, half width; v of upper lid, lower lid, brow
    (202.9, 102.0, 0.098, 10.6, -4.4, 2.3, -10.2),
    (247.9, 104.4, -0.026, 11.8, -4.6, 2.1, -10.0),
)
NECK_X, NECK_Y = 222.0, 185.0  # the head turns about this point


@dataclass(frozen=True)
class Pose:
    """What one frame shows.

    Attributes:
        opening: distance of the lips at the middle of the mouth, 0 closed to 1 wide open.
        spread: width of the lips, -1 rounded to 1 spread, 0 at rest.
        lift: how far the upper lip bares the teeth, 0 to 1.
        tongue: how high the tongue lies, 0 to 1.
        blink: 0 eyes open to 1 closed.
        right: shift of the head in pixels of the photograph.
        down: shift of the head in pixels of the photograph.
        turn: of the head about the neck in radians, clockwise.
        growth: of the head, as by coming nearer.
    """

    opening: float
    spread: float = 0.0
    lift: float = 0.0
    tongue: float = 0.0
    blink: float = 0.0
    right: float = 0.0
    down: float = 0.0
    turn: float = 0.0
    growth: float = 0.0


def _smooth(x: np.ndarray) -> np.ndarray:
    """Smoothstep: 0 below 0, 1 above 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _stretch(
    distance: np.ndarray,
    shown: np.ndarray | float,
    source: np.ndarray | float,
    slope: np.ndarray | float,
    end_slope: float = 1.0,
) -> np.ndarray:
    """Distance from an edge in the photograph, of a point at ``distance`` from it in the frame.

    A cubic (Hermite) from (0, 0) with ``slope`` to (shown, source) with ``end_slope``: skin at
    either end is scaled by 1 / slope. Constant below 0 and beyond ``shown``.
    """
    t = np.clip(distance / shown, 0, 1)
    bends = (1 - t) ** 2 * (shown * slope) - t * (1 - t) * (shown * end_slope)
    return t * (bends + t * (3 - 2 * t) * source)


class Face:
    """Draws frames of the talking head.

    Args:
        size: height and width of a frame in pixels.
        tint: factors of red, green and blue.
        person: whose face it is.

    Raises:
        ConfigError: if size is out of range; smaller faces are too small for Haar.
        S2VError: if scikit-image is not installed.
    """

    def __init__(
        self,
        size: int,
        tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
        person: Person = PERSONS[0],
    ) -> None:
        if not 192 <= size <= 1024 or size % 2:
            raise ConfigError(f"size {size}: use an even number from 192 to 1024.")
        try:
            from skimage import data
        except ImportError as error:
            raise S2VError(
                "The demo's face needs scikit-image; install it: pip install -e '.[demo]'"
            ) from error
        self.size = size
        self.scale = OVERSAMPLING * size / CROP
        side = round(OVERSAMPLING * size)
        x, y = np.meshgrid(*_grid(slice(0, side), slice(0, side), self.scale))
        photo = data.astronaut().astype(np.float32)
        photo = cv2.remap(photo, x, y, cv2.INTER_CUBIC, None, cv2.BORDER_REFLECT)
        photo = person.coloured(photo, self.scale, CROP_X, CROP_Y)
        self.tint = np.array(tint, np.float32)
        self.photo = np.clip(photo * self.tint, 0, 255).astype(np.uint8)
        self._prepare_mouth()
        self._prepare_eyes()
        self._prepare_sway(person)

    def draw(self, pose: Pose) -> np.ndarray:
        """One frame.

        Returns:
            (size, size, 3) uint8 RGB.
        """
        canvas = self.photo.copy()
        if pose.blink > 0:
            self._draw_eyes(canvas, pose.blink)
        self._draw_mouth(canvas, pose)
        return self._draw_sway(canvas, pose)

    def _box(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """Rows and columns of the canvas that a box of the photograph covers."""
        rows = slice(*(round((y - CROP_Y) * self.scale) for y in (top, bottom)))
        columns = slice(*(round((x - CROP_X) * self.scale) for x in (left, right)))
        return rows, columns

    def _axes(self, box: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """Photograph's y (rows, 1) and x (1, columns) of the canvas pixels in a box."""
        rows, columns = box
        x, y = _grid(columns, rows, self.scale)
        return y[:, None], x[None]

    def _canvas(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Canvas coordinates of coordinates in the photograph."""
        return (x - CROP_X + 0.5) * self.scale - 0.5, (y - CROP_Y + 0.5) * self.scale - 0.5

    def _sample(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The photograph at coordinates (rows, columns) of its own."""
        at_x, at_y = self._canvas(x, y)
        return cv2.remap(self.photo, at_x, at_y, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)

    def _prepare_mouth(self) -> None:
        self.mouth_box = self._box(MOUTH_X - 52, MOUTH_Y - 20, MOUTH_X + 52, MOUTH_Y + 62)
        self.inner_box = self._box(MOUTH_X - 25, MOUTH_Y - 4, MOUTH_X + 25, MOUTH_Y + 24)
        y, x = self._axes(self.mouth_box)
        self.mouth_x = x - MOUTH_X
        self.mouth_v = y - MOUTH_Y - MOUTH_TILT * self.mouth_x
        self.chin = 1 - _smooth((np.abs(self.mouth_x) - 12) / 36)  # share in the jaw's motion
        self.neck = 1 - _smooth((self.mouth_v - NECK[0]) / (NECK[1] - NECK[0]))
        y, x = self._axes(self.inner_box)
        u = (x - MOUTH_X) / HALF_WIDTH
        v = y - MOUTH_Y - MOUTH_TILT * (x - MOUTH_X)
        upper, lower = _source_lips(u)
        depth = np.minimum(v - upper, lower - 0.5 - v)
        self.teeth = self.photo[self.inner_box].astype(np.float32)
        self.teeth_alpha = (np.clip(depth + 0.5, 0, 1) * (np.abs(u) < 1))[..., None]

    def _draw_mouth(self, canvas: np.ndarray, pose: Pose) -> None:
        gap = MAX_OPENING * pose.opening
        rounding, spreading = max(-pose.spread, 0.0), max(pose.spread, 0.0)
        width = (0.88 + 0.12 * spreading - 0.4 * rounding) * (1 - 0.08 * pose.opening)
        top = CLOSED - 1.7 * pose.lift + 0.4 * rounding
        corner = 2.4 - 1.4 * spreading + 0.16 * gap
        corner += rounding * (top + 0.4 * gap - corner)  # rounded lips lose their smile
        jaw = 0.6 * gap * self.chin

        # Along the mouth: where each column comes from, and the lips' edges there.
        x = self.mouth_x
        source_x = _narrow(x, width * HALF_WIDTH)
        u = source_x / HALF_WIDTH
        inside = np.clip(1 - u * u, 0, 1)
        outside = corner * np.exp(-((np.maximum(np.abs(u), 1) - 1) ** 2) * 8)
        upper = np.where(inside > 0, corner + (top - corner) * inside, outside)
        lower = upper + gap * inside ** (0.8 - 0.25 * rounding)
        upper_source, lower_source = _source_lips(u)
        upper_source = upper_source - 0.9 * _smooth(inside * 4)  # the edge itself is half tooth
        lower_source = lower_source + 0.8 * _smooth(inside * 4)

        # Above and below: skin stretched from the lip's edge to where the motion ends.
        v = self.mouth_v
        slope_up = 1 - 0.35 * rounding * inside
        slope_down = 1 - 0.1 * rounding * inside
        above = upper_source - _stretch(upper - v, upper - NOSE, upper_source - NOSE, slope_up)
        chin = CHIN + jaw
        below = lower_source + _stretch(v - lower, chin - lower, CHIN - lower_source, slope_down)
        below = np.where(v < chin, below, v - jaw * self.neck)
        above = np.where(v > NOSE, above, v)
        source_v = np.where(v < (upper + lower) / 2, above, below)

        narrowing = _smooth((v + 12) / 14) * (1 - _smooth((v - 18) / 20))
        from_x = x + (source_x - x) * narrowing
        from_y = source_v + MOUTH_Y + MOUTH_TILT * from_x
        canvas[self.mouth_box] = self._sample(from_x + MOUTH_X, from_y)
        self._draw_inside(canvas, upper, lower, u, pose)

    def _draw_inside(
        self, canvas: np.ndarray, upper: np.ndarray, lower: np.ndarray, u: np.ndarray, pose: Pose
    ) -> None:
        """What shows between the lips."""
        rows, columns = self.inner_box
        r0, c0 = self.mouth_box[0].start, self.mouth_box[1].start
        part = slice(columns.start - c0, columns.stop - c0)
        v = self.mouth_v[rows.start - r0 : rows.stop - r0, part]
        upper, lower, u = upper[:, part], lower[:, part], u[:, part]
        gap = lower - upper
        below_lip, above_lip = v - upper, lower - v

        colour = np.broadcast_to(np.array(CAVITY, np.float32) * self.tint, (*v.shape, 3))
        height = gap * (0.34 + 0.5 * pose.tongue) * np.clip(1 - (u / 0.85) ** 2, 0, 1)
        tongue = _smooth((height - above_lip) / 2.5 + 0.5) * np.clip(height, 0, 1)
        shade = 0.45 + 0.4 * np.clip(below_lip / 8, 0, 1)
        colour = colour + tongue[..., None] * (
            shade[..., None] * (np.array(TONGUE, np.float32) * self.tint) - colour
        )
        shadow = 0.76 + 0.22 * _smooth(below_lip / 3)  # the lip's shadow on the teeth
        bared = self.teeth_alpha * (1 + 0.85 * min(pose.spread, 0.0))  # rounded lips hide them
        colour = colour + bared * (self.teeth * shadow[..., None] - colour)

        edge = self.scale
        alpha = np.clip(below_lip * edge + 0.5, 0, 1) * np.clip(above_lip * edge + 0.5, 0, 1)
        alpha = alpha * (np.abs(u) < 1)
        # Lips are darkest where they meet, and where they turn into the mouth.
        depth = np.maximum(np.maximum(-below_lip, -above_lip), 0)
        seam = np.exp(-((depth / 0.7) ** 2)) * np.clip((1 - u * u) * 3, 0, 1) * 0.45
        skin = canvas[rows, columns].astype(np.float32) * (1 - seam)[..., None]
        canvas[rows, columns] = skin + alpha[..., None] * (colour - skin) + 0.5

    def _prepare_eyes(self) -> None:
        self.eyes = []
        for x0, y0, tilt, half, upper, lower, brow in EYES:
            box = self._box(x0 - half - 1, y0 + brow - 1, x0 + half + 1, y0 + lower + 3)
            y, x = self._axes(box)
            v = y - y0 - tilt * (x - x0)
            inside = np.clip(1 - ((x - x0) / half) ** 2, 0, 1)
            self.eyes.append(
                (box, x, v, tilt * (x - x0) + y0, upper * inside, lower * inside, brow)
            )

    def _draw_eyes(self, canvas: np.ndarray, blink: float) -> None:
        """Draw the skin between brow and lashes down over the eye."""
        for box, x, v, line, upper, lower, brow in self.eyes:
            lid = upper + blink * (lower - upper)
            source = upper - _stretch(lid - v, lid - brow, upper - brow, 1.0)
            source = np.where(v > brow, source, v)
            skin = self._sample(np.broadcast_to(x, v.shape), source + line).astype(np.float32)
            lashes = 0.5 * blink * np.exp(-(((lid - v) / 0.8) ** 2)) * np.clip(lower, 0, 1)
            alpha = np.clip((lid - v) * self.scale + 0.5, 0, 1)[..., None]
            eye = canvas[box].astype(np.float32)
            canvas[box] = eye + alpha * (skin * (1 - lashes)[..., None] - eye) + 0.5

    def _prepare_sway(self, person: Person) -> None:
        whole = slice(0, self.size)
        x, y = person.source(*np.meshgrid(*_grid(whole, whole, self.size / CROP)))
        across = np.maximum(np.abs(x - 222) - 55, 0) / 45
        head = 1 - _smooth(np.hypot(across, np.maximum(y - 170, 0) / 40))
        self.sway_weight = head
        self.sway_x, self.sway_y = head * (x - NECK_X), head * (y - NECK_Y)
        self.base_x, self.base_y = self._canvas(x, y)

    def _draw_sway(self, canvas: np.ndarray, pose: Pose) -> np.ndarray:
        """The head moves about the neck; background and shoulders stay."""
        right, down, turn, growth = (
            value * self.scale for value in (pose.right, pose.down, pose.turn, pose.growth)
        )
        at_x = self.base_x - right * self.sway_weight - growth * self.sway_x + turn * self.sway_y
        at_y = self.base_y - down * self.sway_weight - growth * self.sway_y - turn * self.sway_x
        return cv2.remap(canvas, at_x, at_y, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)


def _grid(columns: slice, rows: slice, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Photograph's x and y at the middles of the pixels of a picture of it, scaled."""
    x, y = (
        (np.arange(part.start, part.stop, dtype=np.float32) + 0.5) / scale - 0.5
        for part in (columns, rows)
    )
    return x + CROP_X, y + CROP_Y


def _narrow(x: np.ndarray, half_width: float) -> np.ndarray:
    """Place in the photograph of columns x of the frame, where the mouth is half_width wide."""
    across = np.abs(x)
    cheek = (CHEEK - HALF_WIDTH) / (CHEEK - half_width)
    lips = 1.5 * HALF_WIDTH / half_width - 0.5 * cheek
    source = _stretch(across, half_width, HALF_WIDTH, lips, cheek) + _stretch(
        across - half_width, CHEEK - half_width, CHEEK - HALF_WIDTH, cheek
    )
    return np.sign(x) * (source + np.maximum(across - CHEEK, 0))


def _source_lips(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inner edges of the photograph's lips as v, at places u along the mouth."""
    across = np.clip(np.abs(u), 0, 1)
    upper = UPPER_LIP * (1 - across * across)
    lower = LOWER_LIP * (1 - across**2.2)
    return upper, lower
