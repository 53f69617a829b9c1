"""Values of `robust` and `neighbours` that were given and that the run would never read: a mistake, and not a wish.

A new objective that reads keys of `robust` is added to the lines below.
"""

import ml_collections

from advdiff_jax import workdir
from advdiff_jax.errors import UserError

_SECOND_TERM = ("equivariance", "invariance", "jvp")
_RADIUS = ("radius", "rho", "bias_min", "bias_max", "constant")
_STRENGTH = ("weight", "lam", "kappa0", "cut", "exponent")
_ASCENT = ("maximize", "attack_steps", "step_size", "random_start")

# (keys, {choice: values}): a key is read where every line that names it has a choice with one of its values.
READ_WHERE = (
    (tuple(f"robust.{key}" for key in (*_RADIUS, "ball", *_STRENGTH)), {"objective": _SECOND_TERM}),
    (tuple(f"robust.{key}" for key in ("perturbation", *_ASCENT)), {"objective": ("equivariance", "invariance")}),
    (tuple(f"robust.{key}" for key in _ASCENT), {"robust.perturbation": ("adversarial",)}),
    (("robust.rho", "robust.bias_min", "robust.bias_max"), {"robust.radius": ("state_units", "noise_units")}),
    (("robust.constant",), {"robust.radius": ("constant",)}),
    (("robust.lam",), {"robust.weight": ("paper",)}),
    (("robust.kappa0", "robust.exponent"), {"robust.weight": ("cutoff", "adaptive")}),
    (("robust.cut",), {"robust.weight": ("cutoff",)}),
    (("robust.explained",), {"objective": ("denoising",), "robust.weight": ("adaptive",)}),  # plain training reports a level
    (("neighbours.updates", "neighbours.adv_lr", "neighbours.max_norm"), {"objective": ("at_diff",)}),
    (("neighbours.gamma",), {"objective": ("ddpm_ip",)}),
    (("neighbours.guess",), {"objective": ("ambient_guess",)}),
    (("neighbours.margin",), {"objective": ("ambient_oracle", "ambient_guess")}),
    (("neighbours.huber_schedule", "neighbours.huber_c"), {"criterion": ("pseudo_huber",)}),
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
        for keys, choices in READ_WHERE:
            if key in keys and all(values[choice] not in read for choice, read in choices.items()):
                wanted = (f"config.{choice} {' or '.join(map(repr, read))}" for choice, read in choices.items())
                chosen = (repr(values[choice]) for choice in choices)
                raise UserError(
                    f"config.{key}={values[key]!r} would not be read: it is for {', or '.join(wanted)}, which is "
                    f"{' and '.join(chosen)} in variant {config.variant}"
                )
