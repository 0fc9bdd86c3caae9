"""Whether a probability means what it says, and how to make it so."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aco_jax.ops.masking import masked_mean, masked_sum

_NEWTON_STEPS = 30
_RIDGE = 1e-6  # of the curvature of one example: keeps the step finite where all logits are equal
_LEAST_PROBABILITY = 1e-6
_LEAST_CERTAIN = 1e-13
_LEAST_SCALE, _GREATEST_SCALE = 1e-2, 1e2
_TEMPERATURES = tuple(np.geomspace(0.7, 8, 41).tolist())


def tempered(p: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of the same log odds, divided by a temperature; float64, on the host. Guo et al. 2017, section 4.2.

    Args:
      p: any shape, in [0, 1].
      temperature: above 1 makes them less sure; what was below a half stays below.
    """
    p = np.clip(np.asarray(p, np.float64), _LEAST_CERTAIN, 1 - _LEAST_CERTAIN)
    return 1 / (1 + ((1 - p) / p) ** (1 / temperature))


def expected_calibration_error(p: chex.Array, y: chex.Array, mask: chex.Array, bins: int = 10) -> jax.Array:
    """sum_b n_b / n |mean y - mean p| over bins of equal width.

    Naeini et al. 2015, Bayesian Binning; Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3.

    Args:
      p: [N] in [0, 1].
      y: [N] in {0, 1}.
      mask: [N] bool.
      bins: int.
    """
    chex.assert_rank([p, y, mask], 1)
    gap = jax.ops.segment_sum(jnp.where(mask, y - p, 0.0), _bin(p, mask, bins), num_segments=bins)
    return jnp.sum(jnp.abs(gap)) / jnp.maximum(jnp.count_nonzero(mask), 1)


def reliability(
    p: chex.Array, y: chex.Array, mask: chex.Array, bins: int = 10
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean p, mean y and number of entries of each of the bins that the calibration error looks at, [bins] each.

    DeGroot and Fienberg 1983, The Comparison and Evaluation of Forecasters. An empty bin has means of 0.

    Args:
      p: [N] in [0, 1].
      y: [N] in [0, 1].
      mask: [N] bool.
      bins: int.
    """
    chex.assert_rank([p, y, mask], 1)
    which = _bin(p, mask, bins)
    count, stated, true = (
        jax.ops.segment_sum(jnp.where(mask, x, 0), which, num_segments=bins) for x in (jnp.ones(p.shape, int), p, y)
    )
    return stated / jnp.maximum(count, 1), true / jnp.maximum(count, 1), count


def preference_confidence(margin: chex.Array) -> tuple[jax.Array, jax.Array]:
    """How sure a reward is of a preference, and how right: (sigmoid |margin|, 1 where margin > 0, at 0 a half).

    Folding makes it the same whichever of two responses is named first. Guo et al. 2017, On Calibration of Modern
    Neural Networks, section 2; the probability is that of Bradley and Terry 1952.

    Args:
      margin: any shape, the reward of the response that is known to be better less that of the other.
    """
    return jax.nn.sigmoid(jnp.abs(margin)), jnp.heaviside(margin, 0.5)


def brier(p: chex.Array, y: chex.Array, mask: chex.Array) -> jax.Array:
    """Mean of (p - y)^2. Brier 1950, Verification of Forecasts, eq. 2, for two classes counted once.

    Args:
      p: [N] in [0, 1].
      y: [N] in [0, 1].
      mask: [N] bool.
    """
    chex.assert_rank([p, y, mask], 1)
    return masked_mean(jnp.square(p - y), mask)


@jax.jit
def fit_temperature(logits: chex.Array, y: chex.Array, mask: chex.Array) -> jax.Array:
    """The temperature with the least log-loss: p = sigmoid(logit / temperature).

    Guo et al. 2017, On Calibration of Modern Neural Networks, section 4.2.

    Args:
      logits: [N].
      y: [N] in [0, 1].
      mask: [N] bool.

    Returns:
      scalar in [0.01, 100].
    """
    chex.assert_rank([logits, y, mask], 1)
    scale = _newton(jnp.stack([logits], axis=1), y, mask, jnp.ones(1))[0]
    return 1.0 / jnp.clip(scale, _LEAST_SCALE, _GREATEST_SCALE)


@jax.jit
def platt(logits: chex.Array, y: chex.Array, mask: chex.Array) -> tuple[jax.Array, jax.Array]:
    """Slope and intercept with the least log-loss on smoothed targets: p = sigmoid(slope logit + intercept).

    Platt 1999, Probabilistic Outputs for Support Vector Machines, section 2.2: (n+ + 1)/(n+ + 2), 1/(n- + 2).

    Args:
      logits: [N].
      y: [N] in [0, 1].
      mask: [N] bool.

    Returns:
      (slope, intercept), scalars.
    """
    chex.assert_rank([logits, y, mask], 1)
    positive, negative = masked_sum(y, mask), masked_sum(1.0 - y, mask)
    targets = y * (positive + 1.0) / (positive + 2.0) + (1.0 - y) / (negative + 2.0)
    prior = jnp.log((positive + 1.0) / (negative + 1.0))
    features = jnp.stack([logits, jnp.ones_like(logits)], axis=1)
    slope, intercept = _newton(features, targets, mask, jnp.stack([jnp.zeros_like(prior), prior]))
    return slope, intercept


def choice_temperature(logits: np.ndarray, right: np.ndarray, weight: np.ndarray) -> float:
    """The temperature with the least log-loss of choosing among candidates and NULL, whose logit is 0; on the host.

    Guo et al. 2017, section 4.2, for a choice. Some forty temperatures from 0.7 to 8 are tried.

    Args:
      logits: [n, K], -inf where there is no candidate.
      right: [n, K] bool, what may be chosen; NULL where nothing is.
      weight: [n] >= 0, not all 0.
    """
    logits, found = np.asarray(logits, np.float64), right.any(axis=1)

    def loss(temperature: float) -> float:
        scaled = logits / temperature
        everything = np.logaddexp(np.logaddexp.reduce(scaled, axis=1), 0.0)
        chosen = np.where(found, np.logaddexp.reduce(np.where(right, scaled, -np.inf), axis=1), 0.0)
        return float(np.sum(weight * (everything - chosen)) / np.sum(weight))

    return min(_TEMPERATURES, key=loss)


def scaled_average(mean: chex.Numeric, positive: chex.Numeric, negative: chex.Numeric) -> chex.Numeric:
    """A share, from the mean probability in all, in known positives and in known negatives; outside [0, 1] by luck.

    Bella et al. 2010, Quantification via Probability Estimators, eq. 4.
    """
    return (mean - negative) / (positive - negative)


def prior_shift(p: chex.Array, old_prior: chex.Numeric, new_prior: chex.Numeric) -> jax.Array:
    """Posterior under another prior: p new/old, normalised with (1 - p) (1 - new)/(1 - old).

    Saerens et al. 2002, Adjusting the Outputs of a Classifier, eq. 2.4.

    Args:
      p: [N] calibrated under old_prior.
      old_prior: scalar in (0, 1).
      new_prior: scalar in (0, 1).
    """
    chex.assert_rank([p, old_prior, new_prior], [1, 0, 0])
    old = jnp.clip(old_prior, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    new = jnp.clip(new_prior, _LEAST_PROBABILITY, 1.0 - _LEAST_PROBABILITY)
    yes, no = p * (new / old), (1.0 - p) * ((1.0 - new) / (1.0 - old))
    return yes / (yes + no)


@functools.partial(jax.jit, static_argnames="steps")
def em_prior(p: chex.Array, mask: chex.Array, old_prior: chex.Numeric, steps: int) -> jax.Array:
    """The prior of this population: the mean posterior, shifted and averaged again, `steps` times.

    Saerens et al. 2002, Adjusting the Outputs of a Classifier, eq. 2.9. Give it original posteriors only.

    Args:
      p: [N] calibrated under old_prior.
      mask: [N] bool; the old prior comes back where none is valid.
      old_prior: scalar in (0, 1).
      steps: int.
    """
    chex.assert_rank([p, mask, old_prior], [1, 1, 0])

    def step(_: int, prior: jax.Array) -> jax.Array:
        return masked_mean(prior_shift(p, old_prior, prior), mask)

    start = jnp.asarray(old_prior, jnp.float32)
    return jnp.where(jnp.any(mask), jax.lax.fori_loop(0, steps, step, start), start)


def _bin(p: chex.Array, mask: chex.Array, bins: int) -> jax.Array:
    """The bin of equal width that each probability [N] falls into; 1 falls into the last."""
    return jnp.clip((jnp.where(mask, p, 0.0) * bins).astype(jnp.int32), 0, bins - 1)


def _newton(features: jax.Array, targets: chex.Array, mask: chex.Array, start: jax.Array) -> jax.Array:
    """Logistic regression [n, d] -> [d] by Newton steps, each shortened until the loss does not rise."""
    features = jnp.where(mask[:, None], features, 0.0)
    lengths = jnp.append(0.5 ** jnp.arange(11.0), 0.0)  # 1 to 1/1024, and standing still

    def loss(theta: jax.Array) -> jax.Array:
        logits = features @ theta
        return masked_mean(jax.nn.softplus(logits) - targets * logits, mask)

    def step(_: int, theta: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(features @ theta)
        curvature = jnp.where(mask, p * (1.0 - p), 0.0)
        hessian = features.T @ (features * curvature[:, None])
        slope = features.T @ jnp.where(mask, p - targets, 0.0)
        move = jnp.linalg.solve(hessian + _RIDGE * jnp.eye(theta.size), slope)
        tries = theta[None, :] - lengths[:, None] * move[None, :]
        return tries[jnp.argmin(jax.vmap(loss)(tries))]

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, start)
