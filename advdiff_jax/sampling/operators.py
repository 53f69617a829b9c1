r"""Linear measurements y = A x + s n of images: A, its adjoint A^T, and an orthonormal basis in which A is 0/1, if any.

    identity      A = I: an image under noise
    masked        A = M, M 0/1 on pixels; the other pixels of y are 0
    blurred       A = convolution with a kernel, mirrored at the border; no such basis
    k_space       A = F^H M F, M 0/1 on the frequencies of the 2-D Fourier transform F; y is the zero-filled image
    from_function A = any linear function; its adjoint is given, or found by transposing its trace

All map images [B, H, W, C] to images of that shape, so y is an image too. The Hartley transform Re F - Im F is real and
orthonormal. A k-space mask that treats a frequency and its negative alike is diagonal in it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from advdiff_jax.errors import InvalidArgument

TOLERANCE = 1e-3  # of <A x, y> = <x, A^T y>, over ||A x|| ||y||


class Basis(NamedTuple):
    """An orthonormal basis in which an operator keeps some coordinates and drops the others.

    Attributes:
        to: images [B, H, W, C] -> their coordinates, of the same shape.
        back: the inverse of `to`, which is its adjoint.
        seen: whether A keeps a coordinate; broadcasts against coordinates.
    """

    to: Callable[[jax.Array], jax.Array]
    back: Callable[[jax.Array], jax.Array]
    seen: jax.Array


class Operator(NamedTuple):
    """A linear measurement.

    Attributes:
        forward: A: images [B, H, W, C] -> measurements [B, ...].
        adjoint: A^T: measurements -> images.
        basis: orthonormal basis in which A is 0/1; None: none is known.
    """

    forward: Callable[[jax.Array], jax.Array]
    adjoint: Callable[[jax.Array], jax.Array]
    basis: Basis | None = None


def _same(x):
    return x


def identity() -> Operator:
    """Builds A = I."""
    return Operator(_same, _same, Basis(_same, _same, jnp.ones((), bool)))


def masked(mask: jax.Array) -> Operator:
    """Builds A = M for a mask of bool, [B, H, W, 1], or [1, H, W, 1] for all images: True where a pixel is seen."""
    return Operator(lambda x: mask * x, lambda y: mask * y, Basis(_same, _same, mask))


def hartley(x: jax.Array) -> jax.Array:
    """Computes the 2-D Hartley transform of images [B, H, W, C], orthonormal and its own inverse."""
    frequencies = jnp.fft.fft2(x, axes=(1, 2), norm="ortho")
    return frequencies.real - frequencies.imag


def k_space(mask: jax.Array) -> Operator:
    """Builds A = F^H M F.

    Args:
        mask: frequencies that are seen, [H, W] of bool, in the order of `numpy.fft.fft2` (zero frequency first).

    Raises:
        InvalidArgument: a frequency is seen and its negative is not, so that A x is not real; or none is seen.
    """
    mask = np.asarray(mask, bool)
    if not mask.any():
        raise InvalidArgument("the k-space mask hides every frequency: make it white where a frequency is known")
    if np.any(mask != np.roll(mask[::-1, ::-1], (1, 1), axis=(0, 1))):
        raise InvalidArgument(
            "the k-space mask sees a frequency and not its negative, as no real image has it: make it symmetric"
        )
    seen = jnp.asarray(mask)[None, :, :, None]

    def project(x):
        return hartley(seen * hartley(x))

    return Operator(project, project, Basis(hartley, hartley, seen))


def blurred(kernel: np.ndarray, shape: tuple[int, ...]) -> Operator:
    """Builds the convolution of every channel with one kernel, mirrored at the border as `corruptions=("blur",)` is.

    Args:
        kernel: [h, w], of odd sides, no larger than the image; not normalised here.
        shape: of an image, (H, W, C).

    Raises:
        InvalidArgument: the kernel has another shape, is not finite, or is zero.
    """
    kernel = np.asarray(kernel, np.float32)
    found = "x".join(map(str, kernel.shape))
    if kernel.ndim != 2 or not all(side % 2 for side in kernel.shape):
        raise InvalidArgument(f"the kernel has shape {found}: give two odd sides, so that it has a centre")
    if kernel.shape[0] > shape[0] or kernel.shape[1] > shape[1]:
        raise InvalidArgument(f"the kernel of {found} is larger than the images of {shape[0]}x{shape[1]}: give a smaller one")
    if not np.isfinite(kernel).all() or not kernel.any():
        raise InvalidArgument("the kernel is zero, or holds numbers that are not finite: give another one")
    rows, columns = (side // 2 for side in kernel.shape)
    flipped = jnp.asarray(kernel[::-1, ::-1])[:, :, None, None]  # XLA correlates

    def forward(x):
        padded = jnp.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="reflect")
        weights = jnp.tile(flipped, (1, 1, 1, x.shape[-1]))
        axes = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            padded, weights, (1, 1), "VALID", dimension_numbers=axes, feature_group_count=x.shape[-1]
        )

    return from_function(forward, shape)


def from_function(
    forward: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], adjoint: Callable[[jax.Array], jax.Array] | None = None
) -> Operator:
    """Builds the operator of a linear function of JAX.

    Args:
        forward: A: images [B, *shape] -> measurements [B, ...].
        shape: of an image.
        adjoint: A^T; None: the transpose of the trace of `forward`.

    Raises:
        InvalidArgument: `forward` is not linear, so there is no adjoint; or `adjoint` is not that of `forward`.
    """

    if adjoint is None:
        operator = Operator(
            forward, lambda y: jax.linear_transpose(forward, jax.ShapeDtypeStruct((len(y), *shape), y.dtype))(y)[0]
        )
        said, remedy = "the operator has no adjoint", "give a linear function of JAX, or an adjoint beside it"
    else:
        operator = Operator(_with_adjoint(forward, adjoint), adjoint)
        said, remedy = "the adjoint is not that of the operator", "mend it"
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    try:
        is_zero = bool(jnp.all(jnp.abs(forward(jnp.zeros_like(x))) <= TOLERANCE))
        error = adjoint_error(operator, x)
    except (NotImplementedError, TypeError, ValueError, AssertionError) as reason:  # of a primitive without a transpose
        raise InvalidArgument(f"{said} ({_line(reason)}): {remedy}") from reason
    if not is_zero or error > TOLERANCE:
        found = f"<A x, y> and <x, A^T y> differ by {error:.2g} of ||A x|| ||y||" if is_zero else "A 0 is not 0"
        raise InvalidArgument(f"{said} ({found}): {remedy}")
    return operator


def _with_adjoint(forward, adjoint):
    """Returns `forward` with the given adjoint as its derivative's, as gradients through it need."""
    function = jax.custom_vjp(forward)
    function.defvjp(lambda x: (forward(x), None), lambda _, y: (adjoint(y),))
    return function


def adjoint_error(operator: Operator, x: jax.Array) -> float:
    """Returns |<A x, y> - <x, A^T y>| / (||A x|| ||y||) for images x [B, ...], the larger of y random and y = A x.

    In many dimensions a random y is nearly orthogonal to A x, and hides a wrong factor.
    """
    seen = operator.forward(x)

    def apart(y):
        difference = jnp.vdot(seen, y) - jnp.vdot(x, operator.adjoint(y))
        return float(jnp.abs(difference) / jnp.maximum(jnp.linalg.norm(seen) * jnp.linalg.norm(y), 1e-20))

    return max(apart(jax.random.normal(jax.random.key(1), seen.shape)), apart(seen))


def _line(reason):
    words = " ".join(str(reason).split())
    return "it is not linear" if isinstance(reason, AssertionError) or not words else words[:120]
