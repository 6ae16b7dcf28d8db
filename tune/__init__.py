"""Ray Tune applications."""
