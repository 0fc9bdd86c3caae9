"""GGUF files say what the folders say that they were made from, as far as their types can."""

from __future__ import annotations

from pathlib import Path

import gguf
import jax
import numpy as np
import pytest
import tokenizers
from safetensors import numpy as tensors

from aco_jax.models import gguf_files, pretrained, transformer

GOLDEN = Path(__file__).parent / "golden"
TYPES = gguf.GGMLQuantizationType
EMBEDDING = "model.embed_tokens.weight"


def pairs_together(kernel, heads):
    """The order in which llama's queries and keys are stored: rotated pairs side by side."""
    return kernel.reshape(heads, 2, -1, *kernel.shape[1:]).swapaxes(1, 2).reshape(kernel.shape)


def write(path, name, stored, edit=lambda found: None, **metadata):
    """golden/<name> as GGUF: matrices of width 32 as `stored`, the rest in float32."""
    params, config = pretrained.from_hugging_face(GOLDEN / name)
    family, a = {"smollm2": "llama"}.get(name, name), config.architecture
    pretrained.to_hugging_face(path.parent / name, params, config)
    found = tensors.load_file(path.parent / name / "model.safetensors")
    back = {theirs: mine for mine, theirs in (gguf_files._NAMES | gguf_files._LAYER).items()}
    writer = gguf.GGUFWriter(path, family)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.decoder_layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(a.kv_heads or config.heads)
    writer.add_context_length(config.max_length)
    writer.add_layer_norm_rms_eps(a.norm_epsilon)
    writer.add_rope_freq_base(a.rotary_base)
    writer.add_bos_token_id(config.bos)
    if a.head_width:
        writer.add_key_length(a.head_width)
    edit(found)
    for full, array in found.items():
        stem, kind = full.rsplit(".", 1)
        inner = stem.removeprefix("model.layers.")
        number, part = inner.split(".", 1) if inner != stem else ("", stem)
        if family == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
            array = pairs_together(array, config.heads if part.endswith("q_proj") else a.kv_heads)
        kept = stored if array.ndim == 2 and array.shape[1] == 32 else TYPES.F32
        label = f"blk.{number}.{back.get(part, part)}.{kind}" if number else f"{back.get(stem, stem)}.{kind}"
        writer.add_tensor(label, gguf.quantize(array, kept), raw_dtype=kept)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return params, config


@pytest.mark.parametrize("name", ["smollm2", "qwen2", "qwen3"])
def test_a_float_file_says_what_the_folder_says(name, tmp_path):
    params, config = write(tmp_path / "model.gguf", name, TYPES.F32)
    found, same = gguf_files.from_gguf(tmp_path / "model.gguf")
    assert same.architecture.position == ("interleaved" if name == "smollm2" else "rotary")
    tokens = jax.numpy.asarray(np.load(GOLDEN / name / "expected.npz")["tokens"])
    expected = transformer.log_probs(params, config, tokens)
    np.testing.assert_allclose(transformer.log_probs(found, same, tokens), expected, atol=1e-5)
    pretrained.to_hugging_face(tmp_path / "again", found, same)
    again, config_again = pretrained.from_hugging_face(tmp_path / "again")
    assert config_again.architecture.position == "rotary"
    jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.mark.parametrize(
    ("stored", "steps"),
    [(TYPES.F16, 2.0**11), (TYPES.BF16, 2.0**8), (TYPES.Q8_0, 127), (TYPES.Q4_0, 8), (TYPES.Q4_1, 15)],
)
def test_quantised_types_are_read_within_a_step(stored, steps, tmp_path):
    """Blocks of 32 along the inputs: an entry is off by at most a step, the block's largest entry over `steps`."""
    params, _ = write(tmp_path / "model.gguf", "smollm2", stored)
    found, _ = gguf_files.from_gguf(tmp_path / "model.gguf")
    mine, exact = np.asarray(found["embedding"]), np.asarray(params["embedding"])
    reach = np.ptp(exact, axis=1) if stored == TYPES.Q4_1 else np.abs(exact).max(axis=1)
    assert np.all(np.abs(mine - exact) <= 1.01 * reach[:, None] / steps)
    np.testing.assert_array_equal(found["decoder_norm"]["scale"], params["decoder_norm"]["scale"])


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"not a model at all, and not even of the right length")
    with pytest.raises(ValueError, match="not a GGUF file"):
        gguf_files.from_gguf(path)
    write(path, "smollm2", TYPES.F32, lambda found: found.update({"rope_freqs.weight": np.ones(4, np.float32)}))
    with pytest.raises(ValueError, match=r"rope_freqs.weight of shape \(4,\) has no place"):
        gguf_files.from_gguf(path)
    write(path, "smollm2", TYPES.F32, lambda found: found.pop("model.norm.weight"))
    with pytest.raises(ValueError, match=r"model.norm.weight of shape \(32,\) is missing"):
        gguf_files.from_gguf(path)
    write(path, "smollm2", TYPES.F32, lambda found: found.pop(EMBEDDING))
    with pytest.raises(ValueError, match=r"token_embd.weight is missing"):
        gguf_files.from_gguf(path)


def q4_k(block):
    """256 entries of a Q4_K block, read by hand: eight groups of 32, d * scale * nibble - dmin * least."""
    d, dmin = (float(np.frombuffer(block[at : at + 2], np.float16)[0]) for at in (0, 2))
    packed, nibbles, out = block[4:16], block[16:], []
    for group in range(8):
        if group < 4:
            scale, least = packed[group] & 63, packed[group + 4] & 63
        else:
            scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4
            least = (packed[group + 4] >> 4) | (packed[group] >> 6) << 4
        for at in range(32):
            byte = nibbles[group // 2 * 32 + at]
            out.append(d * scale * (byte >> 4 if group % 2 else byte & 15) - dmin * least)
    return out


def q6_k(block):
    """256 entries of a Q6_K block, read by hand: d * scale * (low four bits and high two, less 32)."""
    low, high, scales = block[:128], block[128:192], np.frombuffer(block[192:208], np.int8).astype(int)
    d, out = float(np.frombuffer(block[208:210], np.float16)[0]), []
    for at in range(256):
        half, quarter, place = at // 128, at % 128 // 32, at % 32
        four = low[half * 64 + quarter % 2 * 32 + place] >> (4 if quarter >= 2 else 0) & 15
        two = high[half * 32 + place] >> (2 * quarter) & 3
        out.append(d * scales[at // 16] * ((four | two << 4) - 32))
    return out


@pytest.mark.parametrize(("stored", "size", "by_hand"), [(TYPES.Q4_K, 144, q4_k), (TYPES.Q6_K, 210, q6_k)])
def test_blocks_of_256_are_read_as_by_hand(stored, size, by_hand):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, size=(3, size), dtype=np.uint8)
    halves = rng.normal(size=(3, 2)).astype(np.float16).view(np.uint8)
    blocks[:, (slice(0, 4) if stored == TYPES.Q4_K else slice(208, 210))] = halves[
        :, : 4 if stored == TYPES.Q4_K else 2
    ]
    tensor = gguf.ReaderTensor("a", stored, np.array([256, 3]), 768, blocks.size, 0, blocks, None)
    found = gguf_files._dequantized(Path("a.gguf"), tensor)
    np.testing.assert_allclose(found, [by_hand(block.tobytes()) for block in blocks], rtol=1e-5, atol=1e-5)


def test_a_type_that_is_not_supported_is_named():
    tensor = gguf.ReaderTensor("a", TYPES.I8, np.array([4]), 4, 4, 0, np.zeros(4, np.int8), None)
    with pytest.raises(ValueError, match=r"a.gguf: tensor a is I8, not supported"):
        gguf_files._dequantized(Path("a.gguf"), tensor)


def write_tokenizer(path, kind="gpt2", split="smollm"):
    """Two bytes that merge, digits, and a token that no text spells."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(split)
    writer.add_token_list(["<|end|>", "a", "b", "ab", "1", "2", "12", "Ġ"])
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * 7])
    writer.add_token_merges(["a b", "1 2"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(("split", "number"), [("smollm", [4, 5]), ("gpt-2", [6])])
def test_tokenizer(tmp_path, split, number):
    written = gguf_files.tokenizer_of(write_tokenizer(tmp_path / "t.gguf", split=split))
    read = tokenizers.Tokenizer.from_str(written)
    assert read.encode("ab a<|end|>12").ids == [3, 7, 1, 0, *number]
    assert read.decode(read.encode("ab a12").ids) == "ab a12"


@pytest.mark.parametrize("given", [{"kind": "llama"}, {"split": "qwen2"}])
def test_a_tokenizer_of_another_kind_is_refused(tmp_path, given):
    with pytest.raises(ValueError, match=r"t.gguf: tokenizer is \['.*'\], expected gpt2 that splits as one of smollm"):
        gguf_files.tokenizer_of(write_tokenizer(tmp_path / "t.gguf", **given))
