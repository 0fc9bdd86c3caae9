"""What a student is taught by: a teacher's distribution over tokens, its texts, or its opinion of the student's own."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp


def token_kl(
    teacher: chex.Array, student: chex.Array, temperature: float | chex.Array = 1.0, reverse: bool = False
) -> jax.Array:
    """temperature^2 x KL(teacher, student) of one token, nats; the teacher gets no gradient.

    Hinton et al. 2015, Distilling the Knowledge in a Neural Network, section 2; reversed, Gu et al. 2024, MiniLLM.

    Args:
      teacher, student: [V] logits or log-probabilities.
      temperature: divides both, normalised anew; its square keeps the gradient's size.
      reverse: KL(student, teacher), which seeks a mode, in place of KL(teacher, student), which covers them.
    """
    chex.assert_rank([teacher, student], 1)
    soft_teacher = jax.nn.log_softmax(jax.lax.stop_gradient(teacher) / temperature)
    soft_student = jax.nn.log_softmax(student / temperature)
    p, q = (soft_student, soft_teacher) if reverse else (soft_teacher, soft_student)
    return temperature**2 * jnp.sum(jnp.exp(p) * (p - q))


def sequence_cross_entropy(log_prob: chex.Array, length: chex.Array, weight: chex.Array) -> jax.Array:
    """-sum_k w_k log p(y_k) / sum_k w_k length_k: the student's cross-entropy on a teacher's texts, nats a token.

    Kim and Rush 2016, Sequence-Level Knowledge Distillation, section 3.2. Tokens are the student's own, so that the
    tokenizers may differ. The weights are equal where the texts were sampled from the teacher, and its probabilities,
    normalised over them, where they are its likeliest ones.

    Args:
      log_prob: [K] nats, of whole texts under the student.
      length: [K] tokens of each.
      weight: [K] at least 0.
    """
    chex.assert_rank([log_prob, length, weight], 1)
    return -jnp.sum(weight * log_prob) / jnp.maximum(jnp.sum(weight * length), 1e-6)


def on_policy_kl(student: chex.Array, teacher: chex.Array) -> jax.Array:
    """A number whose gradient is, in the mean over samples, that of KL(student, teacher) over whole texts.

    mean_k stop_gradient(d_k - mean of the others' d) log p(y_k), d_k = log p(y_k) - log q(y_k): the policy gradient of
    Gu et al. 2024, MiniLLM, with the baseline of Kool et al. 2019, Buy 4 REINFORCE Samples, Get a Baseline for Free. It
    needs no token of the teacher's, only what it thinks of each text.

    Args:
      student: [K] nats, log p of K texts that the student itself wrote.
      teacher: [K] nats, log q of the same texts.
    """
    chex.assert_rank([student, teacher], 1)
    chex.assert_equal_shape([student, teacher])
    count = student.shape[0]
    ahead = jax.lax.stop_gradient(student - teacher)
    others = (jnp.sum(ahead) - ahead) / max(count - 1, 1)
    return jnp.mean((ahead - others) * student)
