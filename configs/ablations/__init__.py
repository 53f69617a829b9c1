"""Lists of runs: a file for each table or figure."""
