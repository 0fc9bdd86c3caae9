"""Learning from another model: its distribution over tokens, its texts, or its opinion of the student's texts.

What is needed depends on what both share. With one tokenizer, `sequence_loss` on given texts and `on_policy_loss` on
the student's own. With two, `text_loss` on the teacher's texts and `opinion_loss` on the student's own, both in the
student's tokens: the host writes the texts over (`data.tokens.translate`). Either model may have an encoder or be a
decoder alone. Agarwal et al. 2024, On-Policy Distillation of Language Models; the equations are in `ops.distillation`.
"""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp

from aco_jax.models import generate, transformer
from aco_jax.ops import distillation as equations
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
      temperature, reverse: see `ops.distillation.token_kl`.
    """
    chex.assert_rank([teacher, student, mask], [3, 3, 2])
    one = functools.partial(equations.token_kl, temperature=temperature, reverse=reverse)
    return _mean(jax.vmap(jax.vmap(one))(teacher, student), mask)


def mixed_loss(
    teacher: chex.Array,
    student: chex.Array,
    targets: chex.Array,
    weight: float | chex.Array = 0.5,
    temperature: float | chex.Array = 1.0,
    reverse: bool = False,
) -> tuple[chex.Array, Metrics]:
    """(1 - weight) x cross-entropy on targets [B, T] + weight x `token_kl` of [B, T, V]; target 0 is padding."""
    mask = targets > 0
    chosen = jnp.take_along_axis(student, targets[..., None], axis=-1)[..., 0]
    cross_entropy = -_mean(chosen, mask)
    divergence = token_kl(teacher, student, mask, temperature, reverse)
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
    reverse: bool = False,
) -> tuple[chex.Array, Metrics]:
    """`mixed_loss` of two models over the same tokens that read source [B, S] and are forced to write target [B, T]."""
    taught = jax.lax.stop_gradient(log_probs(teacher, teacher_model, source, target))
    own = log_probs(student, student_model, source, target)
    return mixed_loss(taught, own, target, weight, temperature, reverse)


def on_policy_loss(
    student: Params,
    student_model: transformer.Config,
    teacher: Params,
    teacher_model: transformer.Config,
    source: chex.Array,
    *,
    eos: int,
    length: int,
    key: chex.PRNGKey,
    temperature: float | chex.Array = 1.0,
    reverse: bool = True,
) -> tuple[chex.Array, Metrics]:
    """`token_kl` to the teacher along texts of at most `length` tokens that the student samples itself.

    The samples are constants for the gradient (Agarwal et al. 2024, algorithm 1).
    """
    written = sample(jax.lax.stop_gradient(student), student_model, source, eos=eos, length=length, key=key)
    return sequence_loss(student, student_model, teacher, teacher_model, source, written, 1.0, temperature, reverse)


def text_loss(
    student: Params,
    student_model: transformer.Config,
    source: chex.Array,
    target: chex.Array,
    weight: chex.Array | None = None,
) -> tuple[chex.Array, Metrics]:
    """`sequence_cross_entropy` on a teacher's texts [B, T], written in the student's tokens, for sources [B, S]."""
    total, count = sequence_log_prob(student, student_model, source, target)
    weight = jnp.ones_like(total) if weight is None else weight
    loss = equations.sequence_cross_entropy(total, count, weight)
    return loss, {"cross_entropy": loss}


def opinion_loss(
    student: Params,
    student_model: transformer.Config,
    source: chex.Array,
    written: chex.Array,
    teacher_log_prob: chex.Array,
) -> tuple[chex.Array, Metrics]:
    """`on_policy_kl`, the mean over sources [B, S], of K texts each that the student wrote, [B, K, T].

    Args:
      teacher_log_prob: [B, K] nats, what the teacher says of each text given the source: `sequence_log_prob` of it
        in the teacher's own tokens.

    Returns:
      the loss, and the estimate of KL(student, teacher) in nats a text.
    """
    chex.assert_rank([source, written, teacher_log_prob], [2, 3, 2])
    shape = written.shape[:2]
    sources = jnp.repeat(source, shape[1], axis=0)
    own, _ = sequence_log_prob(student, student_model, sources, written.reshape(-1, written.shape[-1]))
    own = own.reshape(shape)
    loss = jnp.mean(jax.vmap(equations.on_policy_kl)(own, teacher_log_prob))
    return loss, {"distillation_kl": jnp.mean(own - teacher_log_prob)}


def sample(
    params: Params,
    model: transformer.Config,
    source: chex.Array,
    *,
    eos: int,
    length: int,
    key: chex.PRNGKey,
    samples: int = 1,
) -> chex.Array:
    """Texts [B x samples, length] that a model writes after sources [B, S], at temperature 1."""
    return generate.generate(params, model, source, bos=model.bos, eos=eos, length=length, key=key, samples=samples)[0]


def log_probs(params: Params, model: transformer.Config, source: chex.Array, target: chex.Array) -> chex.Array:
    """Log-probabilities [B, T, V] of each token of target [B, T], forced, after source [B, S].

    A decoder alone reads the begin token, the source and the target as one sequence.
    """
    if model.encoder_layers:
        memory = transformer.encode(params, model, source)
        return transformer.log_probs(params, model, transformer.shift(target, model.bos), memory, source)
    row, segments = transformer.prompted(model, source, target)
    hidden = transformer.decode(params, model, row, segments=segments)[:, source.shape[1] :]
    return transformer.next_log_probs(params, model, hidden, row)


def sequence_log_prob(
    params: Params, model: transformer.Config, source: chex.Array, target: chex.Array
) -> tuple[chex.Array, chex.Array]:
    """Log-probability (nats) of target [B, T] after source [B, S], and its tokens, [B] each."""
    each, mask = transformer.sequence_log_prob(params, model, source, target)
    return jnp.sum(each, axis=1), jnp.sum(mask, axis=1)


def _mean(values: chex.Array, mask: chex.Array) -> chex.Array:
    return jnp.sum(jnp.where(mask, values, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
