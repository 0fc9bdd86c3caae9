"""Buckets as published, and rotations that know only how far apart two tokens stand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import positions


def test_buckets_are_apart_when_near_and_logarithmic_when_far():
    back = positions.buckets(-np.array([0, 1, 15, 16, 18, 19, 31, 32, 63, 64, 127, 128, 999]), 32, 128, both_ways=False)
    # 16 + floor(16 log(n / 16) / log(128 / 16)), at most 31
    np.testing.assert_array_equal(back, [0, 1, 15, 16, 16, 17, 21, 21, 26, 26, 31, 31, 31])
    np.testing.assert_array_equal(positions.buckets(np.array([3, -3, 0]), 32, 128, both_ways=False), [0, 3, 0])
    np.testing.assert_array_equal(positions.buckets(np.array([3, -3, 200, -200]), 32, 128, True), [19, 3, 31, 15])


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotated_products_depend_on_the_distance_alone(interleaved):
    rng = np.random.default_rng(0)
    q, k = (jnp.asarray(np.repeat(rng.normal(size=(1, 1, 1, 8)), 6, axis=1), jnp.float32) for _ in range(2))
    turn = positions.rotation(jnp.arange(6), 8, 100.0)
    q, k = (positions.rotate(x, turn, interleaved)[0, :, 0] for x in (q, k))
    products = np.asarray(q @ k.T)
    for distance in range(-5, 6):
        np.testing.assert_allclose(np.ptp(np.diag(products, distance)), 0, atol=1e-5)
    assert np.ptp(products[0]) > 0.1


def test_rotation_turns_pairs_as_complex_numbers_do():
    x = np.random.default_rng(1).normal(size=(1, 3, 2, 8)).astype(np.float32)
    angles = np.arange(3)[:, None] * 10.0 ** -np.arange(0, 8, 2)[None]
    turn = positions.rotation(jnp.arange(3), 8, 10.0**8)
    factor = np.exp(1j * angles)[None, :, None]
    half = (x[..., :4] + 1j * x[..., 4:]) * factor
    near = (x[..., ::2] + 1j * x[..., 1::2]) * factor
    np.testing.assert_allclose(
        positions.rotate(x, turn, False), np.concatenate([half.real, half.imag], axis=-1), atol=1e-5
    )
    expected = np.stack([near.real, near.imag], axis=-1).reshape(x.shape)
    np.testing.assert_allclose(positions.rotate(x, turn, True), expected, atol=1e-5)
