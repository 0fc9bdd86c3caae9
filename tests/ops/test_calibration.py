from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from aco_jax.ops import calibration

RNG = np.random.default_rng(8)
N = 60
LOGITS = (2.0 * RNG.normal(size=N)).astype(np.float32)
Y = (RNG.uniform(size=N) < 1 / (1 + np.exp(-0.4 * LOGITS + 0.6))).astype(np.float32)
MASK = np.arange(N) < 50
P = (1 / (1 + np.exp(-LOGITS))).astype(np.float32)
SPOILED = np.where(MASK, LOGITS, np.nan).astype(np.float32)


def log_loss(logits, targets):
    return np.mean(np.logaddexp(0, logits) - targets * logits)


def test_expected_calibration_error(variant):
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = MASK & (low <= P) & (low + 0.1 > P)
        if inside.any():
            expected += inside.sum() / MASK.sum() * abs(Y[inside].mean() - P[inside].mean())
    value = variant(calibration.expected_calibration_error, P, Y, MASK)
    assert value == pytest.approx(expected, rel=1e-5)


def test_calibration_error_by_hand():
    p, y = jnp.array([1.0, 1.0, 0.25, 0.25]), jnp.array([1.0, 0.0, 1.0, 0.0])
    full = jnp.ones(4, bool)
    # half the mass is off by 1/2, the other half by 1/4; 1.0 falls into the last bin
    assert calibration.expected_calibration_error(p, y, full) == pytest.approx(0.375)
    assert calibration.expected_calibration_error(p, y, full, bins=1) == pytest.approx(0.125)
    assert calibration.expected_calibration_error(p, y, jnp.zeros(4, bool)) == 0.0


def test_brier(variant):
    expected = np.mean((P[:50].astype(np.float64) - Y[:50]) ** 2)
    assert variant(calibration.brier, P, Y, MASK) == pytest.approx(expected, rel=1e-5)


def test_temperature_has_the_least_log_loss(variant):
    best = optimize.minimize_scalar(
        lambda t: log_loss(LOGITS[:50].astype(np.float64) / t, Y[:50]), bounds=(0.01, 100), method="bounded"
    )
    assert variant(calibration.fit_temperature, LOGITS, Y, MASK) == pytest.approx(best.x, rel=1e-3)


def test_platt_has_the_least_log_loss_on_smoothed_targets(variant):
    positive, negative = Y[:50].sum(), (1 - Y[:50]).sum()
    targets = np.where(Y[:50] == 1, (positive + 1) / (positive + 2), 1 / (negative + 2))
    best = optimize.minimize(
        lambda theta: log_loss(theta[0] * LOGITS[:50].astype(np.float64) + theta[1], targets), np.zeros(2)
    )
    found = variant(calibration.platt, LOGITS, Y, MASK)
    np.testing.assert_allclose(found, best.x, rtol=1e-3)


def test_padding_changes_no_fit():
    assert calibration.fit_temperature(SPOILED, Y, MASK) == calibration.fit_temperature(LOGITS, Y, MASK)
    clean, spoiled = calibration.platt(LOGITS, Y, MASK), calibration.platt(SPOILED, Y, MASK)
    np.testing.assert_array_equal(clean, spoiled)
    p = np.where(MASK, P, np.nan).astype(np.float32)
    for clean, spoiled in (
        (calibration.brier(P, Y, MASK), calibration.brier(p, Y, MASK)),
        (
            calibration.expected_calibration_error(P, Y, MASK),
            calibration.expected_calibration_error(p, Y, MASK),
        ),
        (calibration.em_prior(P, MASK, 0.5, 5), calibration.em_prior(p, MASK, 0.5, 5)),
    ):
        assert clean == spoiled


@pytest.mark.parametrize(
    ("logits", "y"),
    [
        (np.array([-3.0, -2.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0, 1.0])),  # separable
        (np.array([-30.0, -20.0, 20.0, 30.0]), np.array([1.0, 1.0, 0.0, 0.0])),  # reversed
        (np.zeros(4), np.array([0.0, 1.0, 1.0, 1.0])),  # no information
        (np.array([100.0, -100.0, 90.0, -90.0]), np.array([1.0, 1.0, 0.0, 0.0])),  # large
        (np.array([1.0, 2.0, 3.0, 4.0]), np.ones(4)),  # one class
    ],
)
def test_fits_stay_finite(logits, y):
    logits, y = jnp.asarray(logits, jnp.float32), jnp.asarray(y, jnp.float32)
    mask = jnp.ones(4, bool)
    temperature = calibration.fit_temperature(logits, y, mask)
    assert 0.01 <= temperature <= 100.001
    slope, intercept = calibration.platt(logits, y, mask)
    assert np.isfinite([slope, intercept]).all()
    fitted = log_loss(np.float64(slope) * logits + np.float64(intercept), y)
    assert fitted <= log_loss(np.zeros(4), y) + 0.02  # no worse than knowing nothing, but for the smoothing


def test_platt_without_examples_says_one_half():
    slope, intercept = calibration.platt(jnp.ones(3), jnp.ones(3), jnp.zeros(3, bool))
    assert slope == intercept == 0.0


def test_prior_shift(variant):
    p = np.array([0.0, 0.2, 0.5, 1.0], np.float32)
    shifted = variant(calibration.prior_shift, p, np.float32(0.5), np.float32(0.1))
    logit = np.log(0.2 / 0.8) + np.log(0.1 / 0.9)
    np.testing.assert_allclose(shifted, [0.0, 1 / (1 + np.exp(-logit)), 0.1, 1.0], rtol=1e-5)
    same = variant(calibration.prior_shift, p, np.float32(0.3), np.float32(0.3))
    np.testing.assert_allclose(same, p, rtol=1e-5)


def saerens(p, old, steps):
    prior = old
    for _ in range(steps):
        yes, no = p * prior / old, (1 - p) * (1 - prior) / (1 - old)
        prior = np.mean(yes / (yes + no))
    return prior


def test_em_prior(variant):
    expected = saerens(P[:50].astype(np.float64), 0.4, 20)
    estimate = variant(functools.partial(calibration.em_prior, steps=20), P, MASK, np.float32(0.4))
    assert estimate == pytest.approx(expected, rel=1e-4)
    nobody = calibration.em_prior(jnp.asarray(P), jnp.zeros(N, bool), 0.4, 3)
    assert nobody == pytest.approx(0.4)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
def test_em_prior_finds_the_share_of_a_shifted_population(share):
    """A classifier calibrated at one half, asked about a population of another share."""
    rng = np.random.default_rng(9)
    y = rng.uniform(size=4000) < share
    evidence = rng.normal(loc=np.where(y, 1.5, -1.5))
    p = 1 / (1 + np.exp(-3.0 * evidence))  # the log-likelihood ratio of the two normals
    estimate = calibration.em_prior(jnp.asarray(p, jnp.float32), jnp.ones(4000, bool), 0.5, 100)
    assert estimate == pytest.approx(share, abs=0.03)


def test_the_bins_of_a_picture_make_up_the_calibration_error(variant):
    stated, true, count = variant(calibration.reliability, np.where(MASK, P, np.nan), Y, MASK)
    for b in range(10):
        inside = MASK & (b / 10 <= P) & (b / 10 + 0.1 > P)
        assert count[b] == inside.sum()
        if inside.any():
            assert stated[b] == pytest.approx(P[inside].mean(), rel=1e-5)
            assert true[b] == pytest.approx(Y[inside].mean(), rel=1e-5)
        else:
            assert stated[b] == true[b] == 0.0
    error = float(np.sum(count * np.abs(true - stated)) / count.sum())
    assert error == pytest.approx(float(calibration.expected_calibration_error(P, Y, MASK)), rel=1e-5)


def test_a_preference_is_as_sure_whichever_is_named_first(variant):
    margin = np.array([2.0, -2.0, 0.0, np.log(3.0)], np.float32)
    p, y = variant(calibration.preference_confidence, margin)
    np.testing.assert_allclose(p, [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-2)), 0.5, 0.75], rtol=1e-6)
    np.testing.assert_array_equal(y, [1.0, 0.0, 0.5, 1.0])


def test_preferences_drawn_as_a_reward_says_are_calibrated():
    """Bradley-Terry's own draws: a margin d comes out right with probability sigmoid(d)."""
    rng = np.random.default_rng(11)
    said = rng.normal(size=20_000) * 2
    right = rng.uniform(size=said.size) < 1 / (1 + np.exp(-said))
    margin = np.where(right, said, -said).astype(np.float32)  # of what turned out better over the other
    full = jnp.ones(said.size, bool)
    p, y = calibration.preference_confidence(jnp.asarray(margin))
    assert calibration.expected_calibration_error(p, y, full, 20) < 0.02
    assert calibration.fit_temperature(jnp.abs(margin), y, full) == pytest.approx(1.0, abs=0.05)
    p, y = calibration.preference_confidence(3 * jnp.asarray(margin))
    assert calibration.expected_calibration_error(p, y, full, 20) > 0.1
    assert calibration.fit_temperature(3 * jnp.abs(margin), y, full) == pytest.approx(3.0, abs=0.15)


def test_tempered_odds_by_hand():
    """Odds of 16 are 4 at temperature 2; a half stays, certainty stays finite, order and side stay."""
    np.testing.assert_allclose(calibration.tempered(np.array([16 / 17, 1 / 17, 0.5]), 2.0), [0.8, 0.2, 0.5])
    p = np.array([0.0, 1e-9, 0.3, 0.5, 0.8, 1.0], np.float32)
    np.testing.assert_allclose(calibration.tempered(p, 1.0), p, atol=1e-7)
    less = calibration.tempered(p, 1.75)
    assert np.isfinite(less).all()
    assert (np.diff(less) > 0).all()
    assert ((less > 0.5) == (p > 0.5)).all()
    assert (np.abs(less - 0.5) <= np.abs(p - 0.5) + 1e-12).all()


def test_the_temperature_of_a_choice_is_found_again_and_is_the_best():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4000, 5)) * 3
    logits[:, 3:] = np.where(rng.random((4000, 2)) < 0.5, -np.inf, logits[:, 3:])
    true = np.concatenate([logits / 2.5, np.zeros((4000, 1))], axis=1)  # NULL last
    p = np.exp(true - true.max(axis=1, keepdims=True))
    chosen = (p.cumsum(axis=1) / p.sum(axis=1, keepdims=True) > rng.random((4000, 1))).argmax(axis=1)
    right = chosen[:, None] == np.arange(5)
    weight = rng.random(4000)
    found = calibration.choice_temperature(logits, right, weight)
    assert found == pytest.approx(2.5, rel=0.1)

    def loss(temperature):
        total = 0.0
        for row, answer, each in zip(logits[:200], chosen[:200], weight[:200], strict=True):
            odds = [*np.exp(row / temperature).tolist(), 1.0]
            total -= each * np.log(odds[answer] / sum(odds))
        return total

    few = calibration.choice_temperature(logits[:200], right[:200], weight[:200])
    assert loss(few) <= min(loss(few * 1.06), loss(few / 1.06))


def test_several_right_candidates_share_what_is_chosen():
    """Two candidates alike, both right, beside NULL: surer is better without end; where NULL is right, less so."""
    logits, both = np.full((1, 2), 2.0), np.ones((1, 2), bool)
    assert calibration.choice_temperature(logits, both, np.ones(1)) == pytest.approx(0.7)
    assert calibration.choice_temperature(logits, ~both, np.ones(1)) == pytest.approx(8.0)


def test_a_share_by_the_scaled_average():
    """Nine of ten partners are seen, and of what has none one in ten: of 30% with a partner 34% look like it."""
    assert calibration.scaled_average(0.3 * 0.9 + 0.7 * 0.1, 0.9, 0.1) == pytest.approx(0.3)
