"""Honest media: a visible label and a watermark on all frames."""

from s2vgan.provenance.marker import Marker

__all__ = ["Marker"]
