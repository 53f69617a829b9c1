"""The process, without learned parts: x_t = alpha(t) x0 + sigma(t) eps, t in [0, 1]."""
