"""Objectives: `objective(predict, keys, x0, t) -> (loss [B], aux)`, with plain functions in and out.

`predict(x [B, ...], t [B]) -> [B, ...]` is the network. `keys` [B] holds one typed key per example, so that a result does not
depend on how a batch is spread over devices. `aux` maps names to [B] arrays for the log. No objective knows a device or
averages over the batch. One that evaluates part of a batch again passes its places: `predict(x, t, rows=rows)`.
"""
