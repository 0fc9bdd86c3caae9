"""The arithmetic of the language models' benchmark on tiny networks; nothing is timed."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax.models import transformer
from aco_jax.models.config import Architecture
from benchmarks import language_models as benchmark
from benchmarks import torch_peer

FORM = Architecture(position="rotary", norm="scaled_rms", gated=True, source_match=False)
CONFIG = transformer.Config(40, 32, 4, 0, 2, 64, 16, copy=False, pad=-1, architecture=FORM)
LAYER = 4 * 32 * 32 + 3 * 32 * 64  # entries of its kernels
OUTPUTS = 4 * 32 + 2 * 64 + 32  # of them, one scale each in int8


@pytest.fixture(scope="module")
def params():
    return transformer.init(jax.random.key(0), CONFIG)


def test_bytes_are_those_counted_by_hand(params):
    found = benchmark.memory((params, CONFIG))
    norms, table, agents, rank = 5 * 32, 40 * 32, len(benchmark.AGENTS), benchmark.RANK
    whole = 2 * LAYER + norms + table
    assert found["six copies"]["parameters"] == 4 * agents * (whole + 32)
    adapters = 2 * rank * (4 * (32 + 32) + 3 * (32 + 64))
    assert found["one trunk"]["parameters"] == 4 * (whole + agents * (adapters + 32))
    for name, trained in (("six copies", whole), ("one trunk", adapters)):
        # two moments of each parameter, and a count of steps a model
        assert found[name]["optimiser"] == 4 * agents * (2 * (trained + 32) + 1)
    assert found["kernels"]["float32"] == 4 * (2 * LAYER + table)
    assert found["kernels"]["int8"] == 2 * LAYER + table + 4 * (2 * OUTPUTS + 40)
    assert found["kernels"]["int4"] == (2 * LAYER + table) * (0.5 + 4 / 32)


def test_a_difference_by_hand():
    exact = np.log([[[0.5, 0.25, 0.25], [0.2, 0.4, 0.4 + 1e-9]]])
    other = np.log([[[0.25, 0.5, 0.25], [0.2, 0.4, 0.4 + 1e-9]]])
    found = benchmark.difference(exact, other)
    assert found["agreement"] == 0.5
    assert found["kl"] == pytest.approx(0.5 * (0.5 * np.log(2) - 0.25 * np.log(2)))


def test_int8_loses_less_than_int4(params):
    rows = np.random.default_rng(0).integers(1, 40, (3, 12)).astype(np.int32)
    found = benchmark.quality((params, CONFIG), rows)
    assert 0 < found["int8"]["kl"] < found["int4"]["kl"]
    assert found["int8"]["tokens"] == 36


def test_every_row_writes_as_many_new_tokens_after_ragged_prompts(params):
    prompts = benchmark._prompts(3, CONFIG)
    assert (prompts[:, 0] != CONFIG.pad).all()
    assert (prompts[0] != CONFIG.pad).all()
    assert np.any(prompts == CONFIG.pad)
    written = np.asarray(benchmark._continue(params, CONFIG, prompts))
    assert written.shape == (3, benchmark.NEW)
    assert (written != CONFIG.pad).all()


def test_a_reward_step_puts_the_chosen_first(params):
    batch = np.random.default_rng(0).integers(1, 40, (4, 8)).astype(np.int32)
    batch[1, 5:] = CONFIG.pad
    step, held = benchmark.reward_step(params, CONFIG, batch)
    for _ in range(60):
        step()
    whole, _ = held["now"]
    scores = benchmark.scores_of(whole, CONFIG, jnp.asarray(batch))
    assert (scores[:2] > scores[2:] + 0.1).all()
    alone = benchmark.scores_of(whole, CONFIG, jnp.asarray(batch[1:2, :5]))
    np.testing.assert_allclose(alone, scores[1:2], atol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize("peer", [torch_peer.reward_step, torch_peer.trainer_step])
def test_a_reward_step_is_the_peers(peer):
    if peer is torch_peer.trainer_step:
        pytest.importorskip("trl")
    form = dataclasses.replace(FORM, activation="silu", embedding_scale=False)  # Llama's
    network = dataclasses.replace(CONFIG, architecture=form)
    params = transformer.init(jax.random.key(0), network)
    batch = np.random.default_rng(0).integers(1, 40, (4, 8)).astype(np.int32)
    batch[1, 5:] = CONFIG.pad
    ours, held = benchmark.reward_step(params, network, batch)
    theirs, model = peer((params, network), batch, threads=2)
    for _ in range(4):  # the head begins at 0: the first step moves nothing else
        ours()
        theirs()
    whole, _ = held["now"]
    found = {"head": model.score.weight[0], "embedding": model.model.embed_tokens.weight}
    found = {name: leaf.detach().numpy() for name, leaf in found.items()}
    assert np.abs(found["embedding"] - params["embedding"]).max() > 1e-4
    np.testing.assert_allclose(found["head"], whole["head"], atol=1e-6)
    np.testing.assert_allclose(found["embedding"], whole["trunk"]["embedding"], atol=1e-6)
