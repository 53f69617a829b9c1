"""What moves x_t: how far (`radius`), in which set (`ball`), and whereto (`random`, `adversarial`)."""
