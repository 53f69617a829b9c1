"""Many runs from one config file: `run` does them, `report` and `figures` show them side by side."""
