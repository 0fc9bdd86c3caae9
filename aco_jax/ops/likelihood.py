"""What a sequence, a query or a record is worth to a language model, in nats."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.ops.masking import log_of, masked_mean, masked_sum


def token_log_probs(logits: chex.Array, tokens: chex.Array) -> jax.Array:
    """Log-probability of each token. Log-probabilities may stand for logits: log_softmax leaves them alone.

    Args:
      logits: [T, V].
      tokens: [T] int in [0, V).

    Returns:
      [T] nats.
    """
    chex.assert_rank([logits, tokens], [2, 1])
    log_p = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_p, tokens[:, None], axis=1)[:, 0]


def sequence_log_prob(log_probs: chex.Array, mask: chex.Array) -> jax.Array:
    """log p(x) = sum_t log p(x_t given x_<t); with records for tokens, the chain rule over m records.

    Sutskever et al. 2014, Sequence to Sequence Learning with Neural Networks, eq. 1.

    Args:
      log_probs: [T] nats.
      mask: [T] bool, valid tokens.
    """
    chex.assert_rank([log_probs, mask], 1)
    return masked_sum(log_probs, mask)


def length_normalised(log_probs: chex.Array, mask: chex.Array) -> jax.Array:
    """Mean log-probability of a valid token; 0 for an empty sequence.

    Args:
      log_probs: [T] nats.
      mask: [T] bool.
    """
    chex.assert_rank([log_probs, mask], 1)
    return masked_mean(log_probs, mask)


def cross_entropy(log_probs: chex.Array, tokens: chex.Array, mask: chex.Array) -> jax.Array:
    """Mean of -log p(x_t given x_<t, source) over valid tokens (denoising, query generation, rewriting).

    Lewis et al. 2020, BART, section 2; Raffel et al. 2020, T5, section 3.1.4.

    Args:
      log_probs: [T, V] logits or log-probabilities.
      tokens: [T] int.
      mask: [T] bool.
    """
    chex.assert_rank([log_probs, tokens, mask], [2, 1, 1])
    return -masked_mean(token_log_probs(log_probs, tokens), mask)


def conditional_gain(log_p_cond: chex.Array, log_p_marg: chex.Array, length: chex.Array) -> jax.Array:
    """Evidence that records belong together: (log p(d2 given d1) - log p(d2)) / length, mean over orders.

    Pointwise mutual information: Church and Hanks 1990, Word Association Norms.

    Args:
      log_p_cond: [O] nats, of the record given the others, one entry an order.
      log_p_marg: [O] nats, of the same record alone.
      length: [O] tokens of that record.
    """
    chex.assert_rank([log_p_cond, log_p_marg, length], 1)
    return jnp.mean((log_p_cond - log_p_marg) / jnp.maximum(length, 1))


def copy_mixture(
    vocab_log_probs: chex.Array, copy_probs: chex.Array, source_ids: chex.Array, gate_logit: chex.Array
) -> jax.Array:
    """Pointer-generator: log(g p_vocab(v) + (1 - g) sum_{s: source_s = v} p_copy(s)), g = sigmoid(gate).

    See et al. 2017, Get To The Point, eq. 9.

    Args:
      vocab_log_probs: [V] normalised.
      copy_probs: [S] attention over the source, sums to 1, 0 on padding.
      source_ids: [S] int in [0, V).
      gate_logit: scalar.

    Returns:
      [V] normalised log-probabilities.
    """
    chex.assert_rank([vocab_log_probs, copy_probs, source_ids, gate_logit], [1, 1, 1, 0])
    copied = jnp.zeros_like(vocab_log_probs).at[source_ids].add(copy_probs)
    from_vocab = jax.nn.log_sigmoid(gate_logit) + vocab_log_probs
    from_source = jax.nn.log_sigmoid(-gate_logit) + log_of(copied)
    return jnp.logaddexp(from_vocab, from_source)
