"""Clean sources, their corruption, and batches: NumPy only, and of this package only `errors`."""
