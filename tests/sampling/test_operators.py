"""Operators of a measurement: adjoints, the basis in which they are 0/1, and other libraries' results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from advdiff_jax.errors import InvalidArgument
from advdiff_jax.sampling import operators

SHAPE = (6, 8, 2)
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((3, *SHAPE)), jnp.float32)
KERNEL = RNG.random((3, 5)).astype(np.float32)
MASK = RNG.random((3, 6, 8, 1)) < 0.6
HALF = RNG.random((6, 8)) < 0.4
FREQUENCIES = HALF | np.roll(HALF[::-1, ::-1], (1, 1), axis=(0, 1))
OPERATORS = {
    "identity": operators.identity(),
    "masked": operators.masked(MASK),
    "blurred": operators.blurred(KERNEL, SHAPE),
    "k_space": operators.k_space(FREQUENCIES),
    "from_function": operators.from_function(lambda x: x[:, ::2] - x[:, 1::2], SHAPE),
    "given adjoint": operators.from_function(lambda x: 2.0 * x[:, ::-1], SHAPE, lambda y: 2.0 * y[:, ::-1]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_adjoint_is_the_adjoint_and_also_what_a_gradient_uses(name):
    operator = OPERATORS[name]
    assert operators.adjoint_error(operator, X) < 1e-6
    y = jnp.asarray(RNG.standard_normal(operator.forward(X).shape), jnp.float32)
    pulled = jax.vjp(operator.forward, X)[1](y)[0]
    np.testing.assert_allclose(pulled, operator.adjoint(y), atol=1e-5)


@pytest.mark.parametrize("name", [name for name, operator in OPERATORS.items() if operator.basis])
def test_the_operator_is_0_and_1_in_its_basis(name):
    operator = OPERATORS[name]
    to, back, seen = operator.basis
    np.testing.assert_allclose(back(to(X)), X, atol=1e-5)
    np.testing.assert_allclose(jnp.vdot(to(X), to(X)), jnp.vdot(X, X), rtol=1e-5)
    np.testing.assert_allclose(back(seen * to(X)), operator.forward(X), atol=1e-5)


def test_blur_and_k_space_are_those_of_other_libraries():
    blurred = np.stack([ndimage.convolve(X[0, ..., i], KERNEL, mode="mirror") for i in range(2)], -1)
    np.testing.assert_allclose(OPERATORS["blurred"].forward(X)[0], blurred, atol=1e-5)
    filled = np.fft.ifft2(FREQUENCIES[None, ..., None] * np.fft.fft2(X, axes=(1, 2)), axes=(1, 2))
    np.testing.assert_allclose(OPERATORS["k_space"].forward(X), filled, atol=1e-5)  # imaginary parts are 0
    assert 0.2 < FREQUENCIES.mean() < 0.9


@pytest.mark.parametrize("forward", [jnp.sin, lambda x: x + 1.0, jnp.round, lambda x: x * x])
def test_a_function_that_is_not_linear_has_no_adjoint(forward):
    with pytest.raises(InvalidArgument, match=r"the operator has no adjoint \(.*\): give a linear function of JAX"):
        operators.from_function(forward, SHAPE)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: operators.from_function(lambda x: x, SHAPE, lambda y: 2.0 * y), "the adjoint is not that of the operator"),
        (
            lambda: operators.from_function(lambda x: x, (64, 64, 3), lambda y: 0.7 * y),
            "the adjoint is not that of the operator",
        ),
        (lambda: operators.k_space(np.eye(6, 8) > 0), "sees a frequency and not its negative"),
        (lambda: operators.k_space(np.zeros((6, 8))), "hides every frequency"),
        (lambda: operators.blurred(np.ones((2, 3)), SHAPE), "give two odd sides"),
        (lambda: operators.blurred(np.ones((7, 3)), SHAPE), "7x3 is larger than the images of 6x8"),
        (lambda: operators.blurred(np.full((3, 3), np.nan), SHAPE), "not finite"),
    ],
)
def test_bad_operators_are_refused_in_one_line(build, said):
    with pytest.raises(InvalidArgument, match=said) as caught:
        build()
    assert "\n" not in str(caught.value)
