"""Orders of candidates: their probability, their loss, samples of them, and how good they are."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aco_jax.ops.masking import NEVER, log_of, masked_mean, masked_softmax

_NODE_SPACING = 0.25  # the trapezoid rule then errs by less than 1e-6 for ties of up to 16
_NODES = np.arange(-17.0, 5.5, _NODE_SPACING)


def plackett_luce_log_prob(scores: chex.Array, permutation: chex.Array, mask: chex.Array) -> jax.Array:
    """log p(pi) = sum_i [s_pi(i) - logsumexp_{k >= i} s_pi(k)] over valid candidates.

    Plackett 1975, The Analysis of Permutations; Xia et al. 2008, ListMLE, eq. 8.

    Args:
      scores: [K].
      permutation: [K] int, best first; where the masked stand does not matter.
      mask: [K] bool, by candidate.
    """
    chex.assert_rank([scores, permutation, mask], 1)
    chosen = jnp.asarray(mask)[permutation]
    ordered = jnp.where(chosen, jnp.asarray(scores)[permutation], NEVER)
    left = jax.lax.cumlogsumexp(ordered, reverse=True)
    return jnp.sum(jnp.where(chosen, ordered - left, 0.0))


def list_mle(scores: chex.Array, level: chex.Array, mask: chex.Array, levels: int | None = None) -> jax.Array:
    """-log p(every candidate of a level precedes those of later levels), orders within a level marginalised.

    Xia et al. 2008, ListMLE; the sum over orders of a tie is the integral of `_log_prob_first`.

    Args:
      scores: [K].
      level: [K] int, 0 is best (planted positives 0, NULL 1, the rest 2: the last level is not ordered).
      mask: [K] bool.
      levels: only levels below it are ordered, K by default; a smaller number saves work.
    """
    chex.assert_rank([scores, level, mask], 1)
    rank = jnp.arange(scores.shape[0] if levels is None else levels)

    def one(now: jax.Array) -> jax.Array:
        return _log_prob_first(scores, mask & (level == now), mask & (level > now))

    return -jnp.sum(jax.vmap(one)(rank))


def sample_permutation(key: chex.PRNGKey, scores: chex.Array, mask: chex.Array, temperature: chex.Numeric) -> jax.Array:
    """An order drawn from Plackett-Luce(scores / temperature); always a permutation, the masked last.

    Gumbel top-k: Kool et al. 2019, Stochastic Beams and Where to Find Them, section 2.3.

    Args:
      key: typed key.
      scores: [K].
      mask: [K] bool.
      temperature: scalar >= 0; 0 sorts by score, the first among equals first.

    Returns:
      [K] int32.
    """
    chex.assert_rank([scores, mask, temperature], [1, 1, 0])
    perturbed = scores + temperature * jax.random.gumbel(key, scores.shape)
    return jnp.lexsort((-perturbed, ~mask)).astype(jnp.int32)


def null_softmax(scores: chex.Array, mask: chex.Array) -> tuple[jax.Array, jax.Array]:
    """Softmax over the candidates and NULL ("none of these"), whose logit is 0.

    Args:
      scores: [K].
      mask: [K] bool.

    Returns:
      ([K] probabilities, 0 at the masked; scalar probability of NULL).
    """
    chex.assert_rank([scores, mask], 1)
    p = masked_softmax(jnp.append(scores, 0.0), jnp.append(mask, True))
    return p[:-1], p[-1]


def information_gain(p_r: chex.Array, p_o_given_r: chex.Array) -> jax.Array:
    """H[R] - sum_o p(o) H[R given o], nats, with p(o) = sum_r p(r) p(o given r); hence >= 0.

    Lindley 1956, On a Measure of the Information Provided by an Experiment, eq. 7.

    Args:
      p_r: [Y'] belief over relations, sums to 1.
      p_o_given_r: [Y', O] rows sum to 1.
    """
    chex.assert_rank([p_r, p_o_given_r], [1, 2])
    joint = p_r[:, None] * p_o_given_r
    left = _entropy(joint) - _entropy(jnp.sum(joint, axis=0))  # H[R given O] = H[R, O] - H[O]
    return jnp.maximum(_entropy(p_r) - left, 0.0)


def duplicate_penalty(
    cosine: chex.Array, mean: chex.Array, std: chex.Array, start: float = 2.0, full: float = 3.0
) -> jax.Array:
    """How near-duplicate two subqueries are: z = (cosine - mean) / std, 0 below `start`, 1 from `full` on.

    Args:
      cosine: any shape, of two subqueries of one request.
      mean: scalar, of such cosines pooled over requests.
      std: scalar, likewise.
      start: z at which the penalty begins.
      full: z at which it saturates.
    """
    z = (cosine - mean) / jnp.maximum(std, 1e-6)
    return jnp.clip((z - start) / (full - start), 0.0, 1.0)


def reciprocal_rank(scores: chex.Array, relevant: chex.Array, mask: chex.Array) -> jax.Array:
    """1 / rank of the best relevant candidate, irrelevant ones of the same score before it; 0 if none.

    Args:
      scores: [K].
      relevant: [K] bool.
      mask: [K] bool.
    """
    chex.assert_rank([scores, relevant, mask], 1)
    found = relevant & mask
    best = jnp.max(jnp.where(found, scores, NEVER))
    before = jnp.count_nonzero(mask & ~relevant & (scores >= best))
    return jnp.where(jnp.any(found), 1.0 / (1.0 + before), 0.0)


def mean_reciprocal_rank(scores: chex.Array, relevant: chex.Array, mask: chex.Array) -> jax.Array:
    """Mean reciprocal rank over the rows that have a relevant candidate. Voorhees 1999, TREC-8.

    Args:
      scores: [N, K].
      relevant: [N, K] bool.
      mask: [N, K] bool.
    """
    chex.assert_rank([scores, relevant, mask], 2)
    return masked_mean(jax.vmap(reciprocal_rank)(scores, relevant, mask), jnp.any(relevant & mask, axis=1))


def _log_prob_first(scores: chex.Array, first: chex.Array, rest: chex.Array) -> jax.Array:
    """Plackett-Luce log-probability that all of `first`, in any order, precede all of `rest`.

    With an exponential clock of rate exp(s_i) for each candidate and rates scaled so that the rest sum to 1:
    p = integral over t > 0 of e^-t prod_{i in first} (1 - exp(-rate_i t)) dt, taken in x = log t.
    Kool et al. 2020, Estimating Gradients for Discrete Random Variables, appendix B.
    """
    needed = jnp.any(first) & jnp.any(rest)
    total = jax.nn.logsumexp(jnp.where(rest, scores, NEVER))
    log_rate = jnp.where(first & needed, scores - total, 0.0)
    x = jnp.asarray(_NODES, log_rate.dtype)
    ring = jax.vmap(lambda node: jnp.sum(jnp.where(first, _log1m_exp_neg_exp(log_rate + node), 0.0)))(x)
    log_p = jax.nn.logsumexp(x - jnp.exp(x) + ring) + float(np.log(_NODE_SPACING))
    return jnp.where(needed, log_p, 0.0)


def _log1m_exp_neg_exp(x: jax.Array) -> jax.Array:
    """log(1 - exp(-exp(x))), accurate and differentiable at both ends."""
    small = x < -15.0  # there exp(-exp(x)) is 1 - exp(x) in float32
    rate = jnp.exp(jnp.clip(x, -15.0, 4.0))  # above 4 the value is 0 in float32
    return jnp.where(small, x, jnp.log(-jnp.expm1(-rate)))


def _entropy(p: jax.Array) -> jax.Array:
    return -jnp.sum(p * log_of(p))
