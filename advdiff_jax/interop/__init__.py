"""Weights and settings of other libraries' models, in and out; no torch but for pickled state dicts."""
