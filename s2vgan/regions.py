"""Where the parts of a face lie in a crop. A crop is a square around a Haar face box."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """A rectangle of a square crop, as shares of its side in [0, 1]."""

    top: float
    bottom: float
    left: float
    right: float

    def slices(self, size: int) -> tuple[slice, slice]:
        """Rows and columns of the region in a crop of ``size`` pixels."""
        return (
            slice(round(self.top * size), round(self.bottom * size)),
            slice(round(self.left * size), round(self.right * size)),
        )


MOUTH = Region(0.62, 0.88, 0.25, 0.75)
UPPER = Region(0.0, 0.5, 0.0, 1.0)  # brows, eyes, bridge of the nose: speech leaves them still
