"""What a training step, the data pipeline and the samplers cost: python -m benchmarks.training, .data or .sampling.

Run them from the project's root, where `configs/` is.
"""
