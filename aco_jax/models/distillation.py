"""Learning from another model's token distribution.

Hinton et al. 2015, Distilling the Knowledge in a Neural Network, section 2.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from aco_jax.models import transformer
from aco_jax.types import Metrics, Params


def token_kl(
    teacher: chex.Array,
    student: chex.Array,
    mask: chex.Array,
    temperature: float | chex.Array = 1.0,
    reverse: bool = False,
) -> chex.Array:
    """Mean over valid tokens of temperature^2 x KL, in nats.

    Args:
      teacher, student: [B, T, V] log-probabilities; the teacher gets no gradient.
      mask: [B, T] bool, valid tokens.
      temperature: divides both log-probabilities, normalised anew; its square keeps the gradient's size.
      reverse: KL(student, teacher), which seeks a mode, in place of KL(teacher, student), which covers them.
    """
    chex.assert_rank([teacher, student, mask], [3, 3, 2])
    soft_teacher = jax.nn.log_softmax(jax.lax.stop_gradient(teacher) / temperature)
    soft_student = jax.nn.log_softmax(student / temperature)
    p, q = (soft_student, soft_teacher) if reverse else (soft_teacher, soft_student)
    divergence = jnp.sum(jnp.exp(p) * (p - q), axis=-1)
    return temperature**2 * _mean(divergence, mask)


def mixed_loss(
    teacher: chex.Array,
    student: chex.Array,
    targets: chex.Array,
    weight: float | chex.Array = 0.5,
    temperature: float | chex.Array = 1.0,
) -> tuple[chex.Array, Metrics]:
    """(1 - weight) x cross-entropy on targets [B, T] + weight x `token_kl` of [B, T, V]; target 0 is padding."""
    mask = targets > 0
    chosen = jnp.take_along_axis(student, targets[..., None], axis=-1)[..., 0]
    cross_entropy = -_mean(chosen, mask)
    divergence = token_kl(teacher, student, mask, temperature)
    loss = (1.0 - weight) * cross_entropy + weight * divergence
    return loss, {"cross_entropy": cross_entropy, "distillation_kl": divergence}


def sequence_loss(
    student: Params,
    student_model: transformer.Config,
    teacher: Params,
    teacher_model: transformer.Config,
    source: chex.Array,
    target: chex.Array,
    weight: float | chex.Array = 0.5,
    temperature: float | chex.Array = 1.0,
) -> tuple[chex.Array, Metrics]:
    """`mixed_loss` of two encoder-decoders that read source [B, S] and are forced to write target [B, T]."""

    def log_probs(params: Params, model: transformer.Config) -> chex.Array:
        memory = transformer.encode(params, model, source)
        return transformer.log_probs(params, model, transformer.shift(target, model.bos), memory, source)

    taught = jax.lax.stop_gradient(log_probs(teacher, teacher_model))
    return mixed_loss(taught, log_probs(student, student_model), target, weight, temperature)


def _mean(values: chex.Array, mask: chex.Array) -> chex.Array:
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
