"""From noise to data: the time grid (`grids`), the step rule (`steps`) and the scan (`sample`) are separate.

Beside them the probability-flow ODE by an adaptive solver (`ode`), and the likelihood that it gives (`likelihood`).
"""
