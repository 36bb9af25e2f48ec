"""A video of an object to a 4D asset: one set of 3D Gaussians per frame."""

__version__ = "0.1.0"
