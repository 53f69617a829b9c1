"""What is minimised: `objective(predict, keys, x0, t) -> (loss [B], aux)`, with plain functions in and out.

`predict(x [B, ...], t [B]) -> [B, ...]` is the network; `keys` [B] holds one typed key per example, so that a result does
not depend on how a batch is spread over devices; `aux` maps names to [B] arrays for the log. No device is known here,
and nothing is averaged over the batch. An objective that looks at part of a batch again says which: `predict(x, t, rows=rows)`.
"""
