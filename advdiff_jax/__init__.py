"""Diffusion models that stay good when their data are dirty: adversarial training for score-based models, in JAX."""

__version__ = "0.1.0"
