"""Random numbers per example: each comes from the example's own key, so results do not depend on how a batch is split."""

import jax
import jax.numpy as jnp


def split(keys: jax.Array, count: int) -> jax.Array:
    """Splits each of the typed keys [B] into `count` keys: [count, B], to unpack by purpose."""
    return jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, count))(keys), 1, 0)


def fold_in(keys: jax.Array, number: jax.Array | int) -> jax.Array:
    """Folds one number into each of the keys [B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def normal(keys: jax.Array, like: jax.Array) -> jax.Array:
    """Draws N(0, I) of the shape and dtype of `like` [B, ...], each example from its own key [B]."""
    return jax.vmap(lambda key, x: jax.random.normal(key, x.shape, x.dtype))(keys, like)


def uniform(keys: jax.Array) -> jax.Array:
    """Draws U[0, 1) for each of the keys [B]."""
    return jax.vmap(jax.random.uniform)(keys)
