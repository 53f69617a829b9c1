"""The noise of each example: measured in the data alone, and turned into what an example may teach."""
