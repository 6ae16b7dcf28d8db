"""S2V-GAN: from videos of people talking to a model that turns speech into the talking face."""

__version__ = "0.1.0"
