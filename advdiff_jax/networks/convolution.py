"""Convolutions whose gradients are as fast in a loop as outside of one, on CPUs too.

XLA's CPU compiler has one fast convolution, of NHWC images and HWIO kernels. In the outermost computation it transposes other
layouts into that one. Inside `lax.scan` or `lax.cond` it does not: there the gradients of a convolution, in other layouts, are
naive loops and take 25 (input) to 37 times (kernel) as long; see docs/devices.md. `conv_general_dilated` is that of `jax.lax`,
with JAX's rules for derivatives and batches. Only its lowering for CPUs differs: it writes the transpositions into the program.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# JAX's primitive, and one that has its rules and another lowering.
_LAX = jax.lax.conv_general_dilated_p
_OURS = Primitive("conv_general_dilated_any_layout")


def conv_general_dilated(lhs: jax.Array, rhs: jax.Array, *args: Any, **kwargs: Any) -> jax.Array:
    """Convolves as `jax.lax.conv_general_dilated` does, with its arguments and errors; what are no images go to that."""
    if lhs.ndim != 4:
        return jax.lax.conv_general_dilated(lhs, rhs, *args, **kwargs)
    return _ours(lambda x, kernel: jax.lax.conv_general_dilated(x, kernel, *args, **kwargs), lhs, rhs)


# Flax's layer with it.
Conv = functools.partial(nn.Conv, conv_general_dilated=conv_general_dilated)


def _ours(rule: Callable[..., jax.Array], *args: jax.Array) -> jax.Array:
    """Computes rule(*args), which JAX writes with its own convolutions, with ours in their place."""
    closed = jax.make_jaxpr(rule)(*args)
    values = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *args], strict=True))

    def value(variable):
        return variable.val if hasattr(variable, "val") else values[variable]

    for equation in closed.jaxpr.eqns:
        primitive = _OURS if equation.primitive is _LAX else equation.primitive
        results = primitive.bind(*map(value, equation.invars), **equation.params)
        values |= zip(equation.outvars, results if primitive.multiple_results else [results], strict=True)
    (result,) = map(value, closed.jaxpr.outvars)
    return result


def _transposed(rule, unknown):
    return lambda cotangent: jax.linear_transpose(rule, jax.ShapeDtypeStruct(unknown.aval.shape, unknown.aval.dtype))(
        cotangent
    )[0]


def _input_gradient(cotangent, lhs, rhs, **params):
    return _ours(_transposed(lambda x: _LAX.bind(x, rhs, **params), lhs), cotangent)


def _kernel_gradient(cotangent, lhs, rhs, **params):
    return _ours(_transposed(lambda kernel: _LAX.bind(lhs, kernel, **params), rhs), cotangent)


def _batch(args, axes, **params):
    return _ours(jax.vmap(lambda x, kernel: _LAX.bind(x, kernel, **params), axes), *args), 0


def _canonical(lhs, rhs, *, dimension_numbers, **params):
    """Transposes to NHWC and HWIO, convolves, and transposes back."""
    (batch, feature, *space), (wide, deep, *window), out = dimension_numbers
    images, kernel = lhs.transpose(batch, *space, feature), rhs.transpose(*window, deep, wide)
    layout = jax.lax.conv_dimension_numbers(images.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
    result = _LAX.bind(images, kernel, dimension_numbers=layout, **params)
    places = [out[0], *out[2:], out[1]]  # of the axes of NHWC in the result
    return result.transpose(*(places.index(axis) for axis in range(len(places))))


_OURS.def_impl(_LAX.bind)
_OURS.def_abstract_eval(
    lambda lhs, rhs, **params: jax.make_jaxpr(lambda x, kernel: _LAX.bind(x, kernel, **params))(lhs, rhs).out_avals[0]
)
ad.defbilinear(_OURS, _input_gradient, _kernel_gradient)
batching.primitive_batchers[_OURS] = _batch
mlir.register_lowering(_OURS, mlir.lower_fun(_LAX.bind, multiple_results=False))
mlir.register_lowering(_OURS, mlir.lower_fun(_canonical, multiple_results=False), platform="cpu")
