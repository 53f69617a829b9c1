"""Perturbations of x_t: budget (`radius`), set (`ball`), point of the set (`random`, `adversarial`); and of data (`poison`)."""
