"""Sampling: the time grid (`grids`), the step rule (`steps`) and the scan (`sample`) are separate.

`ode` solves the probability-flow ODE with an adaptive step, and `likelihood` computes the model's likelihood from it.
"""
