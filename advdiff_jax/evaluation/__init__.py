"""Measures on samples and models (known truth, fidelity, memorisation, overfitting), and the figures and report of a run."""
