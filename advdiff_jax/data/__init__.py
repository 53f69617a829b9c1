"""Clean sources, their corruption, and batches; NumPy only, nothing else of the package is known here."""
