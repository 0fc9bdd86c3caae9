"""Checkpoints of every published family say here what they say in torch, see make_golden.py."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as tensors

from aco_jax.models import generate, pretrained, transformer
from aco_jax.models.config import Architecture

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("t5", "flan_t5", "bert", "llama", "smollm2", "qwen2", "qwen3")
EOS = 2
encode = jax.jit(transformer.encode, static_argnames="config")
log_probs = jax.jit(transformer.log_probs, static_argnames="config")


def values_of(folder):
    """What the loaded checkpoint says of all rows at once, and what torch said of each alone: [B, T, V or D]."""
    params, config = pretrained.from_hugging_face(folder)
    expected = np.load(folder / "expected.npz")
    tokens = jnp.asarray(expected["tokens"])
    if not config.decoder_layers:
        return encode(params, config, tokens, None, expected["types"]), expected["values"], expected["lengths"]
    torch_log_probs = jax.nn.log_softmax(expected["values"])
    if config.encoder_layers:
        memory = encode(params, config, tokens)
        said = log_probs(params, config, jnp.asarray(expected["inputs"]), memory, tokens)
        return said, torch_log_probs, [said.shape[1]] * 3
    return log_probs(params, config, tokens), torch_log_probs, expected["lengths"]


def assert_equal_values(folder):
    found, expected, lengths = values_of(folder)
    for mine, theirs, length in zip(found, expected, lengths, strict=True):
        np.testing.assert_allclose(mine[:length], theirs[:length], atol=1e-4)
    return expected


def assert_equal_greedy(folder):
    """Ragged prompts in one batch; torch continued each alone."""
    params, config = pretrained.from_hugging_face(folder)
    expected = np.load(folder / "expected.npz")
    greedy, tokens, source = expected["greedy"], expected["tokens"], None
    if config.encoder_layers:
        source, prefix = jnp.asarray(tokens), jnp.zeros((3, 1), jnp.int32)
    else:
        inside = np.arange(tokens.shape[1]) < expected["lengths"][:, None]
        prefix = jnp.asarray(np.where(inside, tokens, config.pad))
    written, _ = generate.generate(
        *(params, config, source),
        bos=None,
        eos=EOS,
        length=greedy.shape[1],
        key=jax.random.key(0),
        temperature=0.0,
        prefix=prefix,
    )
    np.testing.assert_array_equal(np.where(greedy < 0, config.pad, greedy), written)
    return greedy


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_torch(name):
    expected = assert_equal_values(GOLDEN / name)
    assert np.std(expected[0]) > 0.2  # 1e-4 is not the size of everything


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bert"])
def test_greedy_decoding_is_that_of_torch(name):
    greedy = assert_equal_greedy(GOLDEN / name)
    assert len(np.unique(greedy)) > 8


def test_padding_on_the_left_is_read_once_it_is_moved():
    params, config = pretrained.from_hugging_face(GOLDEN / "smollm2")
    expected = np.load(GOLDEN / "smollm2" / "expected.npz")
    tokens, lengths = expected["tokens"], expected["lengths"]
    left = np.stack([np.r_[[config.pad] * (8 - n), row[:n]] for row, n in zip(tokens, lengths, strict=True)])
    found = log_probs(params, config, transformer.align_left(jnp.asarray(left, jnp.int32), config.pad))
    for mine, theirs, length in zip(found, jax.nn.log_softmax(expected["values"]), lengths, strict=True):
        np.testing.assert_allclose(mine[:length], theirs[:length], atol=1e-4)


def test_an_old_file_of_bert_is_read(tmp_path):
    """Under its class's prefix, norms by their old names, with heads of pre-training and a constant beside."""
    place = shutil.copytree(GOLDEN / "bert", tmp_path / "bert")
    expected, config = pretrained.from_hugging_face(place)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def edit(found):
        for name in list(found):
            after = next((name.replace(new, was) for new, was in old.items() if name.endswith(new)), name)
            found[f"bert.{after}"] = found.pop(name)
        found["cls.predictions.bias"] = np.zeros(64, np.float32)
        found["bert.embeddings.position_ids"] = np.arange(40)

    change(place, edit)
    again, same = pretrained.from_hugging_face(place)
    assert same == config
    jax.tree.map(np.testing.assert_array_equal, expected, again)


def test_old_files_of_t5_hold_copies_and_a_table_that_is_not_read(tmp_path):
    place = shutil.copytree(GOLDEN / "t5", tmp_path / "t5")
    expected, config = pretrained.from_hugging_face(place)

    def edit(found):
        for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
            found[name] = found["shared.weight"].copy()
        table = found["decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        found["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = table + 1

    change(place, edit)
    again, same = pretrained.from_hugging_face(place)
    assert same == config
    jax.tree.map(np.testing.assert_array_equal, expected, again)


@pytest.mark.oracle
def test_live_torch_says_the_same_of_other_weights(tmp_path):
    """Other weights than the golden ones; and torch reads what is written here, with equal values."""
    script = Path(__file__).with_name("make_golden.py")
    subprocess.run([sys.executable, script, tmp_path / "torch", "1"], check=True, capture_output=True)
    for name in NAMES:
        assert_equal_values(tmp_path / "torch" / name)
        if name != "bert":
            assert_equal_greedy(tmp_path / "torch" / name)
        pretrained.to_hugging_face(
            tmp_path / "jax" / name,
            *pretrained.from_hugging_face(tmp_path / "torch" / name),
            {"eos_token_id": EOS},
        )
    subprocess.run([sys.executable, script, tmp_path / "jax", "1", "read"], check=True, capture_output=True)
    for name in NAMES:
        assert_equal_values(tmp_path / "jax" / name)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read_back_bit_for_bit(name, tmp_path):
    params, config = pretrained.from_hugging_face(GOLDEN / name)
    pretrained.to_hugging_face(tmp_path, params, config, {"eos_token_id": EOS})
    again, same = pretrained.from_hugging_face(tmp_path)
    assert same == config
    jax.tree.map(np.testing.assert_array_equal, params, again)
    given = [tensors.load_file(path) for path in sorted((GOLDEN / name).glob("*.safetensors"))]
    shapes = {key: value.shape for shard in given for key, value in shard.items() if not key.startswith("pooler.")}
    written = tensors.load_file(tmp_path / "model.safetensors")
    assert {key: value.shape for key, value in written.items()} == shapes
    theirs, mine = (json.loads((place / "config.json").read_text()) for place in (GOLDEN / name, tmp_path))
    both = mine.keys() & theirs.keys() - {"tie_word_embeddings"}  # t5's is read from the tensors
    assert {key: mine[key] for key in both} == {key: theirs[key] for key in both}


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(GOLDEN / "smollm2", tmp_path / "smollm2")
    return tmp_path / "smollm2"


def change(folder, edit):
    found = tensors.load_file(folder / "model.safetensors")
    edit(found)
    tensors.save_file(found, folder / "model.safetensors")


NORM = "model.layers.1.input_layernorm.weight"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda found: found.pop(NORM), rf"{NORM} of shape \(32,\) is missing"),
        (lambda found: found.update({NORM: np.ones(31)}), rf"{NORM} has shape \(31,\), expected \(32,\)"),
        (lambda found: found.update({NORM: np.ones(32, int)}), f"{NORM} is int64, expected float32"),
        (
            lambda found: found.update({"model.layers.1.mlp.up_proj.weight": np.ones((32, 48), np.float32)}),
            r"up_proj.weight has shape \(32, 48\), expected \(48, 32\)",
        ),
        (lambda found: found.update(score=np.ones(3)), r"score of shape \(3,\) has no place"),
        (lambda found: found.update({"lm_head.weight": np.ones((64, 32))}), r"lm_head.weight of shape .* has no place"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(folder, edit, message):
    change(folder, edit)
    with pytest.raises(ValueError, match=message):
        pretrained.from_hugging_face(folder)


def test_a_copy_of_the_embedding_and_a_bare_model_are_read(folder):
    expected, config = pretrained.from_hugging_face(folder)

    def edit(found):
        found["lm_head.weight"] = found["model.embed_tokens.weight"].copy()
        for name in [name for name in found if name.startswith("model.")]:
            found[name.removeprefix("model.")] = found.pop(name)

    change(folder, edit)
    again, same = pretrained.from_hugging_face(folder)
    assert same == config
    jax.tree.map(np.testing.assert_array_equal, expected, again)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2', expected one of t5"),
        ({"hidden_act": "tanh"}, "activation is 'tanh', expected one of relu"),
        ({"attention_bias": True}, "attention_bias is True, expected False"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn', expected 'default'"),
        ({"hidden_size": None}, "setting 'hidden_size' is missing"),
    ],
)
def test_settings_that_are_not_supported_are_named(folder, settings, message):
    found = json.loads((folder / "config.json").read_text()) | settings
    (folder / "config.json").write_text(json.dumps({name: value for name, value in found.items() if value is not None}))
    with pytest.raises(ValueError, match=message):
        pretrained.from_hugging_face(folder)


def test_a_pickle_is_never_opened(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"neither model.safetensors nor .*; pytorch_model.bin is a pickle"):
        pretrained.from_hugging_face(folder)


def test_a_missing_shard_is_named(tmp_path):
    place = shutil.copytree(GOLDEN / "llama", tmp_path / "llama")
    index = json.loads((place / "model.safetensors.index.json").read_text())
    shard = place / index["weight_map"][NORM]
    found = tensors.load_file(shard)
    del found[NORM]
    tensors.save_file(found, shard)
    with pytest.raises(ValueError, match=f"tensor {NORM} is missing, which model.safetensors.index.json says"):
        pretrained.from_hugging_face(place)
    shard.unlink()
    with pytest.raises(ValueError, match=f"{shard.name} not found beside it"):
        pretrained.from_hugging_face(place)


def test_a_network_of_no_family_is_refused(tmp_path):
    relu = Architecture(activation="relu")
    config = transformer.Config(vocab_size=8, width=8, heads=2, mlp_width=8, architecture=relu)
    with pytest.raises(ValueError, match=r"bert is the nearest of t5, .*, and has no such network"):
        pretrained.to_hugging_face(tmp_path, transformer.init(jax.random.key(0), config), config)
