"""Configs: a file for each data set, `default` with every key, `variants`, and lists of runs in `ablations`."""
