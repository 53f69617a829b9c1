"""Conversions between uint8 and floats, and evenly spaced examples."""

import numpy as np

from advdiff_jax.data import pixels


def test_first_and_evenly_spaced_are_floats_in_order():
    x = np.arange(10, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(pixels.first(x, 3), pixels.to_float(x[:3]))
    np.testing.assert_array_equal(pixels.evenly_spaced(x, 5), pixels.to_float(x[::2]))
    np.testing.assert_array_equal(pixels.evenly_spaced(x, 100), pixels.to_float(x))
    np.testing.assert_array_equal(pixels.first(x, 100), pixels.to_float(x))


def test_samples_are_judged_as_their_data_are_stored():
    samples = np.array([[-1.3, -0.501, 0.0, 0.99, 2.0]], np.float32)
    np.testing.assert_array_equal(pixels.as_stored(samples, np.dtype(np.float32)), samples)
    np.testing.assert_array_equal(pixels.as_stored(samples, np.dtype(np.uint8)), [[0, 64, 128, 254, 255]])


def test_bytes_and_floats_are_inverse():
    values = np.arange(256, dtype=np.uint8)
    assert pixels.to_float(values)[[0, 255]].tolist() == [-1.0, 1.0]
    np.testing.assert_array_equal(pixels.to_bytes(pixels.to_float(values)), values)
    np.testing.assert_array_equal(pixels.to_bytes(np.array([-9.0, 9.0])), [0, 255])
    floats = np.ones(3, np.float32)
    assert pixels.to_float(floats) is floats
