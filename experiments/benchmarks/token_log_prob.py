"""What the chunked token_log_prob and token_kl hold in memory, and how long they take, beside the plain ones.

    python experiments/benchmarks/token_log_prob.py [--tokens=2048] [--width=576] [--timed=128] [--repeats=3]

Memory is what XLA allocates besides arguments and results, as the compiled program says of itself, in float32;
`backward` is value and gradient with respect to hidden states and embedding. Times are medians, plain and chunked in
turn in one process, of fewer tokens: the plain backward at 2048 tokens and 262,144 entries would take gigabytes.
`difference` is the greatest one between the two over the greatest number, of whichever result it is worst.
The goal is a chunked memory of at most an eighth.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np

import launch
from aco_jax.kernels import token_kl, token_log_prob

VOCABULARIES = (49_152, 262_144)
KERNELS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "token_log_prob": (token_log_prob.reference, token_log_prob.chunked),
    "token_kl": (token_kl.reference, token_kl.chunked),
}


def main() -> None:
    print(f"{jax.devices()[0].device_kind}, {flags.FLAGS.tokens} tokens x {flags.FLAGS.width}", end="; ")
    print(f"times and differences of {flags.FLAGS.timed} tokens")
    print(f"{'kernel':<16}{'vocabulary':>11} {'pass':<9}{'plain':>10}{'chunked':>10}{'ratio':>7}", end="")
    print(f"{'plain':>10}{'chunked':>10}{'difference':>12}")
    for name, forms in KERNELS.items():
        for vocabulary in VOCABULARIES:
            for passes, wrap in (("forward", jax.jit), ("backward", _with_gradient)):
                plain, chunked = (wrap(form) for form in forms)
                few, many = (_arguments(name, length, vocabulary) for length in (flags.FLAGS.timed, flags.FLAGS.tokens))
                held = [_held(function, many) for function in (plain, chunked)]
                seconds, difference = _timed(plain, chunked, few)
                print(f"{name:<16}{vocabulary:>11} {passes:<9}{held[0]:>7.0f} MB{held[1]:>7.0f} MB", end="")
                print(
                    f"{held[0] / held[1]:>6.1f}x{seconds[0]:>8.2f} s{seconds[1]:>8.2f} s{difference:>12.1e}", flush=True
                )


def _with_gradient(form: Callable[..., Any]) -> Callable[..., Any]:
    """Value and gradient with respect to hidden and embedding, of a sum that weighs all that is given."""

    def total(*arguments: jax.Array) -> jax.Array:
        weighted = [
            weight * jnp.sum(x) for weight, x in zip((1.0, 0.3), jax.tree.leaves(form(*arguments)), strict=False)
        ]
        return jnp.sum(jnp.stack(weighted))

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))


def _arguments(name: str, length: int, vocabulary: int) -> list[jax.ShapeDtypeStruct]:
    width = flags.FLAGS.width
    side = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((length, width), (vocabulary, width))]
    return [*side, *side] if name == "token_kl" else [*side, jax.ShapeDtypeStruct((length,), jnp.int32)]


def _held(function: Any, shapes: list[jax.ShapeDtypeStruct]) -> float:
    """Megabytes besides arguments and results."""
    return function.lower(*shapes).compile().memory_analysis().temp_size_in_bytes / 1e6


def _timed(
    plain: Callable[..., Any], chunked: Callable[..., Any], shapes: list[jax.ShapeDtypeStruct]
) -> tuple[list[float], float]:
    """Median seconds of each, and how far apart they are."""
    rng = np.random.default_rng(0)
    arguments = [
        jnp.asarray(rng.integers(0, shapes[1].shape[0], x.shape), x.dtype)
        if x.dtype == jnp.int32
        else jnp.asarray(rng.normal(size=x.shape) * x.shape[-1] ** -0.25, x.dtype)  # logits of variance 1
        for x in shapes
    ]
    ours, theirs = (jax.tree.leaves(jax.block_until_ready(function(*arguments))) for function in (chunked, plain))
    difference = max(float(jnp.max(jnp.abs(x - y)) / jnp.max(jnp.abs(y))) for x, y in zip(ours, theirs, strict=True))
    seconds: list[list[float]] = [[], []]
    for _ in range(flags.FLAGS.repeats):
        for function, taken in zip((plain, chunked), seconds, strict=True):
            start = time.monotonic()
            jax.block_until_ready(function(*arguments))
            taken.append(time.monotonic() - start)
    return [float(np.median(taken)) for taken in seconds], difference


if __name__ == "__main__":
    flags.DEFINE_integer("tokens", 2048, "tokens of the memory's figures", lower_bound=1)
    flags.DEFINE_integer("width", 576, "of hidden states and embeddings; SmolLM2-135M's", lower_bound=1)
    flags.DEFINE_integer("timed", 128, "tokens of the times", lower_bound=1)
    flags.DEFINE_integer("repeats", 3, "timed calls of each", lower_bound=1)
    launch.run(main)
