"""Values of `robust` and `neighbours` given on the command line that the run would never read: a mistake, and not a wish.

A new objective that reads keys of `robust` is added to the lines below.
"""

import ml_collections

from advdiff_jax import workdir
from advdiff_jax.errors import UserError

_SECOND_TERM = ("equivariance", "invariance", "jvp")
_RADIUS = ("radius", "rho", "bias_min", "bias_max", "constant")
_STRENGTH = ("weight", "lam", "kappa0", "cut", "exponent")
_ASCENT = ("maximize", "attack_steps", "step_size", "random_start")

# (keys, the choice that they depend on, its values under which they are read); a key is read where all its lines say so.
READ_WHERE = (
    (tuple(f"robust.{key}" for key in (*_RADIUS, "ball", *_STRENGTH)), "objective", _SECOND_TERM),
    (tuple(f"robust.{key}" for key in ("perturbation", *_ASCENT)), "objective", ("equivariance", "invariance")),
    (tuple(f"robust.{key}" for key in _ASCENT), "robust.perturbation", ("adversarial",)),
    (("robust.rho", "robust.bias_min", "robust.bias_max"), "robust.radius", ("state_units", "noise_units")),
    (("robust.constant",), "robust.radius", ("constant",)),
    (("robust.lam",), "robust.weight", ("paper",)),
    (("robust.kappa0", "robust.exponent"), "robust.weight", ("cutoff", "adaptive")),
    (("robust.cut",), "robust.weight", ("cutoff",)),
    (("neighbours.updates", "neighbours.adv_lr", "neighbours.max_norm"), "objective", ("at_diff",)),
    (("neighbours.gamma",), "objective", ("ddpm_ip",)),
    (("neighbours.guess",), "objective", ("ambient_guess",)),
    (("neighbours.margin",), "objective", ("ambient_oracle", "ambient_guess")),
    (("neighbours.huber_schedule", "neighbours.huber_c"), "criterion", ("pseudo_huber",)),
)


def check(config: ml_collections.ConfigDict, given: list[str]) -> None:
    """Refuses a key that was given and that this config does not read.

    Args:
        config: of one run, with all that was given in it.
        given: keys as on the command line, "a.b".

    Raises:
        UserError: names the first such key, and what it depends on.
    """
    values = workdir.flatten(config)
    for key in given:
        for keys, choice, read in READ_WHERE:
            if key in keys and values[choice] not in read:
                raise UserError(
                    f"config.{key}={values[key]!r} would not be read: it is for config.{choice} "
                    f"{' or '.join(map(repr, read))}, which is {values[choice]!r} in variant {config.variant}"
                )
