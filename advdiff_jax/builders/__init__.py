"""Config -> objects: the registries of every name that a config can give, and the functions that read a config."""
