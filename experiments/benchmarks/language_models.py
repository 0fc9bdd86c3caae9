"""Language models with real weights: how fast they decode and learn, beside torch; what they take; what is lost.

    python experiments/benchmarks/language_models.py --out=runs/benchmarks [--text=FILE] [--repeats=5] [--threads=2]
        [--parts=decoding,reward,memory,quality]

    decoding  SmolLM2-135M, greedy, 64 new tokens after ragged prompts, beside transformers.generate with its cache
    reward    a training step of a reward model (pairs, Bradley-Terry, clipping, AdamW), beside the same in torch,
              bare and by TRL's RewardTrainer, which keeps metrics too; their loading left out
    memory    bytes of six agents on one trunk with LoRA beside six copies, and of int8 and int4 kernels
    quality   how the next tokens of real text differ in int8 and int4

Medians; ours and the peer's in turn in one process, float32. Needs `make setup-pretrained`; torch of `make oracle` and
TRL of `pip install -e ".[peers]"` are "not installed" where missing. Ours takes the threads that it is given from
outside (taskset), torch `--threads`.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import flags

sys.path.append(str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax

import cells
import launch
from aco_jax import report, svg
from aco_jax.data import tokens as tokenizers
from aco_jax.data.records import InputError
from aco_jax.models import generate, gguf_files, installed, lora, quantization, transformer
from aco_jax.models.config import Architecture
from aco_jax.types import Params
from benchmarks import torch_peer

NEW, SHORTEST, LONGEST = 64, 24, 40  # tokens to write; of the prompts
AGENTS, RANK = ("base", "rewriter", "ranker", "reward", "critic", "actor"), 16
PARTS = ("decoding", "reward", "memory", "quality")
Call = Callable[[], Any]


def main() -> None:
    out, parts = Path(flags.FLAGS.out), flags.FLAGS.parts or PARTS
    repeats, threads = flags.FLAGS.repeats, flags.FLAGS.threads
    charts = {}
    if "memory" in parts:
        _print_memory(cells.kept(out / "language-models-memory.json", lambda: memory(_smollm2())))
    if "quality" in parts:
        if not flags.FLAGS.text:
            raise InputError("--text: expected a text file whose next tokens are looked at")
        text = Path(flags.FLAGS.text).read_text(encoding="utf-8")
        _print_quality(cells.kept(out / "language-models-quality.json", lambda: quality(_smollm2(), _rows(text))))
    if "decoding" in parts:
        found = cells.kept(out / f"language-models-decoding-{threads}.json", lambda: decoding(repeats, threads))
        charts["Decoding, tokens a second"] = _print_decoding(found)
    if "reward" in parts:
        found = cells.kept(out / f"language-models-reward-{threads}.json", lambda: reward(repeats, threads))
        charts["Reward model, steps a second"] = _print_reward(found)
    if charts:
        note = f"medians of {repeats} calls in turn, float32 unless it says int8, {threads} threads."
        pictures = {name: svg.bars(bars, "") for name, bars in charts.items()}
        report.write_study(out / "language-models.html", "Language models beside torch", note, pictures)


def decoding(repeats: int, threads: int) -> dict[str, Any]:
    """Tokens a second of each method at batch 1 and 16, and what share of the memory's bandwidth the weights take."""
    params, config = _smollm2()
    small = quantization.quantize(params)
    peer = torch_peer.decoder((params, config), threads) if torch_peer.is_installed() else None
    found: dict[str, Any] = {"bandwidth": bandwidth()}
    for rows in (1, 16):
        prompts = _prompts(rows, config)
        calls: dict[str, Call] = {"ours": functools.partial(_continue, params, config, prompts)}
        if rows == 1:
            calls["ours, int8"] = functools.partial(_continue, small, config, prompts)
        if peer is not None:
            calls["transformers"] = functools.partial(torch_peer.continued, peer, prompts, config.pad, NEW)
        seconds = in_turn(calls, repeats)
        found[str(rows)] = {name: NEW * rows / seconds[name] for name in calls}
        if rows == 1:
            found["share"] = {
                name: quantization.bytes_of(tree) * found["1"][name] / found["bandwidth"]
                for name, tree in (("ours", params), ("ours, int8", small))
            }
    return found


def reward(repeats: int, threads: int) -> dict[str, dict[str, float]]:
    """Seconds of a training step of each size: `ours`, and of those of torch and TRL that are installed."""
    found = {}
    for name, config, pairs, length in _reward_sizes():
        params = transformer.init(jax.random.key(0), config)
        rng = np.random.default_rng(0)
        batch = rng.integers(17, config.vocab_size, (2 * pairs, length)).astype(np.int32)
        ends = rng.integers(length // 2, length, 2 * pairs)
        batch = np.where(np.arange(length) < ends[:, None], batch, config.pad)
        calls = {"ours": reward_step(params, config, batch)[0]}
        if torch_peer.is_installed():
            calls["torch"] = torch_peer.reward_step((params, config), batch, threads)[0]
        if torch_peer.is_installed("trl"):
            calls["TRL"] = torch_peer.trainer_step((params, config), batch, threads)[0]
        found[name] = in_turn(calls, repeats) | {"tokens": float(batch.size)}
    return found


def memory(network: torch_peer.Network) -> dict[str, dict[str, float]]:
    """Bytes of parameters and of AdamW's state, six agents apart and on one trunk; of kernels by type."""
    params, _ = network
    trunk, adapters = lora.share(jax.random.key(0), params, AGENTS, RANK)
    state_of = functools.partial(jax.eval_shape, optax.adamw(1e-4).init)
    heads = len(AGENTS) * params["embedding"].shape[1] * 4
    apart = {"parameters": len(AGENTS) * quantization.bytes_of(params) + heads}
    apart["optimiser"] = len(AGENTS) * quantization.bytes_of(state_of(params)) + 2 * heads
    shared = {"parameters": quantization.bytes_of([trunk, adapters]) + heads}
    shared["optimiser"] = sum(quantization.bytes_of(state_of(tree)) for tree in adapters.values()) + 2 * heads
    kernels = kernels_of(params)
    sizes = {f"int{bits}": float(quantization.bytes_of(quantization.quantize(kernels, bits))) for bits in (8, 4)}
    sizes["float32"] = float(quantization.bytes_of(kernels))
    return {"six copies": apart, "one trunk": shared, "kernels": sizes}


def quality(network: torch_peer.Network, rows: np.ndarray) -> dict[str, dict[str, float]]:
    """Of the next tokens of rows [n, T]: how often the likeliest is the same, and the KL from float32 in nats."""
    params, config = network
    exact = _log_probs(params, config, rows)
    found = {}
    for bits in (8, 4):
        other = _log_probs(quantization.dequantize(quantization.quantize(params, bits)), config, rows)
        found[f"int{bits}"] = difference(exact, other) | {"tokens": float(rows.size)}
    return found


def difference(exact: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Share of equal likeliest tokens of log-probabilities [.., V], and the mean of KL(exact, other) in nats."""
    kl = np.sum(np.exp(exact) * (exact - other), axis=-1)
    return {"agreement": float(np.mean(exact.argmax(-1) == other.argmax(-1))), "kl": float(np.mean(kl))}


def kernels_of(tree: Params) -> Params:
    """The modules that have a kernel of two axes, and nothing else of them."""
    found: Params = {}
    for name, node in tree.items():
        if name == "kernel" or (name == "embedding" and not isinstance(node, dict)):
            found[name] = node
        elif isinstance(node, dict) and (inner := kernels_of(node)):
            found[name] = inner
    return found


def in_turn(calls: Mapping[str, Call], repeats: int) -> dict[str, float]:
    """Median seconds of each, after one call that is not counted."""
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in taken.items()}


def bandwidth(megabytes: int = 512) -> float:
    """Bytes a second of reading an array that no cache holds."""
    array, total = jnp.ones((megabytes << 18,), jnp.float32), jax.jit(jnp.sum)
    return 4 * array.size / in_turn({"sum": lambda: total(array).block_until_ready()}, 5)["sum"]


def reward_step(params: Params, config: transformer.Config, batch: np.ndarray) -> tuple[Call, dict[str, Any]]:
    """A call that takes a step, and what it holds `now`: parameters and the optimiser's state.

    Chosen responses of the batch stand before rejected ones.
    """
    optimiser = optax.chain(optax.clip_by_global_norm(torch_peer.CLIP), optax.adamw(torch_peer.RATE))
    tokens = jnp.asarray(batch)
    whole = {"trunk": params, "head": jnp.zeros((config.width,))}

    def loss(whole: Params) -> jax.Array:
        chosen, rejected = jnp.split(scores_of(whole, config, tokens), 2)
        return -jnp.mean(jax.nn.log_sigmoid(chosen - rejected))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(whole: Params, state: Any) -> tuple[Params, Any]:
        updates, state = optimiser.update(jax.grad(loss)(whole), state, whole)
        return optax.apply_updates(whole, updates), state

    held = {"now": (jax.tree.map(jnp.copy, whole), optimiser.init(whole))}

    def call() -> None:
        held["now"] = jax.block_until_ready(step(*held["now"]))

    return call, held


def scores_of(whole: Params, config: transformer.Config, tokens: jax.Array) -> jax.Array:
    """The score of each response [B, T], padded on the right, at its last token, [B]."""
    last = jnp.sum(tokens != config.pad, axis=1) - 1
    return transformer.decode_at(whole["trunk"], config, tokens, last) @ whole["head"]


def _smollm2() -> torch_peer.Network:
    try:
        return gguf_files.from_gguf(installed.weights_of(installed.SMOLLM2))
    except ValueError as error:
        raise InputError(str(error)) from None


def _rows(text: str, length: int = 64, most: int = 16) -> np.ndarray:
    """The text's first tokens in rows, [n, length]."""
    written = gguf_files.tokenizer_of(installed.weights_of(installed.SMOLLM2))
    (ids,) = tokenizers.from_json(written).encode_lists([text[: 16 * length * most]])
    count = min(len(ids) // length, most)
    if not count:
        raise InputError(f"--text: expected at least {length} tokens")
    return np.asarray(ids[: count * length], np.int32).reshape(count, length)


def _log_probs(params: Params, config: transformer.Config, rows: np.ndarray) -> np.ndarray:
    speak = jax.jit(transformer.log_probs, static_argnames="config")
    return np.concatenate([np.asarray(speak(params, config, jnp.asarray(row[None]))) for row in rows])


def _prompts(rows: int, config: transformer.Config) -> np.ndarray:
    """Ragged prompts [rows, LONGEST], padded on the right; one alone is as long as the longest."""
    rng = np.random.default_rng(rows)
    lengths = rng.integers(SHORTEST, LONGEST + 1, rows)
    lengths[0] = LONGEST
    tokens = rng.integers(17, config.vocab_size, (rows, LONGEST))
    return np.where(np.arange(LONGEST) < lengths[:, None], tokens, config.pad).astype(np.int32)


def _continue(params: Params, config: transformer.Config, prompts: np.ndarray) -> jax.Array:
    tokens, _ = generate.generate(
        *(params, config, jnp.asarray(prompts)),
        bos=None,
        eos=config.vocab_size,  # never written, so that nothing ends early
        length=NEW,
        key=jax.random.key(0),
        temperature=0.0,
    )
    return tokens.block_until_ready()


def _reward_sizes() -> list[tuple[str, transformer.Config, int, int]]:
    """Names, networks, pairs a step and tokens a response."""
    form = Architecture(
        position="rotary", norm="scaled_rms", activation="silu", gated=True, source_match=False, embedding_scale=False
    )
    small = transformer.Config(4096, 160, 4, 0, 4, 480, 256, copy=False, pad=-1, architecture=form)
    _, large = _smollm2()
    return [("2M", small, 16, 64), ("135M", large, 2, 64)]


def _print_memory(found: Mapping[str, Mapping[str, float]]) -> None:
    print(f"{'six agents, MB':<20}{'parameters':>12}{'optimiser':>12}")
    for name in ("six copies", "one trunk"):
        print(f"{name:<20}{found[name]['parameters'] / 1e6:>12.0f}{found[name]['optimiser'] / 1e6:>12.0f}")
    whole = {name: sum(found[name].values()) for name in ("six copies", "one trunk")}
    print(f"{'ratio':<20}{whole['one trunk'] / whole['six copies']:>12.3f}  of both together")
    kernels = found["kernels"]
    print("kernels over float32: " + ", ".join(f"{name} {kernels[name] / kernels['float32']:.3f}" for name in kernels))


def _print_quality(found: Mapping[str, Mapping[str, float]]) -> None:
    print(f"\n{'against float32':<20}{'top-1 agreement':>16}{'KL, nats':>10}{'tokens':>8}")
    for name, row in found.items():
        print(f"{name:<20}{row['agreement']:>16.4f}{row['kl']:>10.5f}{row['tokens']:>8.0f}")


def _print_decoding(found: Mapping[str, Any]) -> dict[str, float]:
    print(f"\n{'decoding':<20}{'batch':>6}{'tokens/s':>10}{'to torch':>15}{'of bandwidth':>14}")
    for rows in ("1", "16"):
        theirs = found[rows].get("transformers")
        for name, rate in found[rows].items():
            ratio = f"{rate / theirs:.2f}" if theirs else "not installed"
            share = f"{found['share'][name]:.2f}" if rows == "1" and name in found["share"] else ""
            print(f"{name:<20}{rows:>6}{rate:>10.1f}{ratio:>15}{share:>14}")
    print(f"memory read at {found['bandwidth'] / 1e9:.1f} GB/s")
    return {f"{name}, batch {rows}": rate for rows in ("1", "16") for name, rate in found[rows].items()}


def _print_reward(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    print(f"\n{'reward step':<20}{'tokens':>8}{'ms':>8}{'over ours':>15}")
    bars = {}
    for size, row in found.items():
        for name in ("ours", "torch", "TRL"):
            taken, ratio = "", "not installed"
            if name in row:
                taken, ratio = f"{1e3 * row[name]:.0f}", f"{row[name] / row['ours']:.2f}"
                bars[f"{name}, {size}"] = 1 / row[name]
            print(f"{f'{name}, {size}':<20}{row['tokens']:>8.0f}{taken:>8}{ratio:>15}")
    return bars


if __name__ == "__main__":
    flags.DEFINE_string("out", "runs/benchmarks", "folder of the figures and the page")
    flags.DEFINE_string("text", "", "file of real text, for quality")
    flags.DEFINE_integer("repeats", 5, "timed calls of each", lower_bound=1)
    flags.DEFINE_integer("threads", 2, "threads of torch", lower_bound=1)
    launch.define_choices("parts", PARTS, "what is measured; all of it by default")
    launch.run(main)
