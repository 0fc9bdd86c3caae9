"""Decoders of Llama's kind from GGUF files, whatever type each tensor is stored in.

Needs the gguf library, `pip install ".[pretrained]"`; whoever imports this module does so where it is needed.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from aco_jax.models import families, family_settings, pretrained, transformer
from aco_jax.types import Params

_SETTINGS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "rope_scaling": "rope.scaling.type",
}
_TOKENS = {"bos_token_id": "tokenizer.ggml.bos_token_id", "eos_token_id": "tokenizer.ggml.eos_token_id"}
_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


_SPECIAL = 3  # the type of tokens that no text spells
_SPLITS = [  # of "smollm" and of GPT-2's kind
    {"type": "Digits", "individual_digits": True},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
]
_SPLIT = {"smollm": _SPLITS, "gpt-2": _SPLITS[1:]}


def from_gguf(path: str | Path) -> tuple[Params, transformer.Config]:
    """Reads a GGUF file of family llama, qwen2 or qwen3 into float32.

    Raises:
      ValueError: the file is not GGUF, its family or a type in it is not supported, a setting is missing, or a tensor
        is missing, not known to the family, or of another shape; names the tensor and both shapes.
    """
    place = Path(path)
    reader = _open(place)
    found = {_name(tensor.name): _dequantized(place, tensor) for tensor in reader.tensors}
    try:
        config = family_settings.config_of(_settings(reader, found))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    if families.family_of(config) == "llama":  # its queries and keys are stored with rotated pairs side by side
        config = dataclasses.replace(
            config, architecture=dataclasses.replace(config.architecture, position="interleaved")
        )
    return pretrained.arrange(place, config, found), config


def tokenizer_of(path: str | Path) -> str:
    """The tokenizer of a GGUF file as a tokenizer.json says it: byte-level BPE.

    Raises:
      ValueError: the file is not GGUF, or its tokenizer is of another kind or splits words in another way.
    """
    place = Path(path)
    fields = _open(place).fields
    kinds = [
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("model", "pre") if f"tokenizer.ggml.{name}" in fields
    ]
    if len(kinds) < 2 or kinds[0] != "gpt2" or kinds[1] not in _SPLIT:
        raise ValueError(f"{place}: tokenizer is {kinds}, expected gpt2 that splits as one of {', '.join(_SPLIT)}")
    tokens, types, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges"))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    special = [{"id": i, "content": tokens[i]} | plain for i, kind in enumerate(types) if kind == _SPECIAL]
    model = {"type": "BPE", "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": special,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": _SPLIT[kinds[1]]},
            "decoder": _SPLITS[-1],
            "model": model,
        },
        ensure_ascii=False,
    )


def _open(place: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(place)
    except (ValueError, IndexError, OSError) as error:
        raise ValueError(f"{place}: not a GGUF file ({error})") from error


def _settings(reader: gguf.GGUFReader, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """What config.json would say."""
    fields = {name: field.contents() for name, field in reader.fields.items()}
    family = fields.get("general.architecture")
    if family not in ("llama", "qwen2", "qwen3"):
        raise ValueError(f"general.architecture is {family!r}, expected llama, qwen2 or qwen3")
    embedding = found.get("model.embed_tokens.weight")
    if embedding is None:
        raise ValueError("tensor token_embd.weight is missing")
    named = {ours: f"{family}.{theirs}" for ours, theirs in _SETTINGS.items()} | _TOKENS
    settings = {ours: fields[theirs] for ours, theirs in named.items() if theirs in fields}
    if scaling := settings.pop("rope_scaling", None):
        settings["rope_scaling"] = {"rope_type": "default" if scaling == "none" else scaling}
    if family == "qwen3":  # its usual head is not width / heads, which a file without key_length means
        settings.setdefault("head_dim", settings["hidden_size"] // settings["num_attention_heads"])
    tied = families.HEAD not in found
    return settings | {"model_type": family, "vocab_size": embedding.shape[0], "tie_word_embeddings": tied}


def _name(name: str) -> str:
    """blk.0.attn_q.weight -> model.layers.0.self_attn.q_proj.weight; a name that is not known is kept."""
    stem, _, kind = name.rpartition(".")
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)", stem)
    if layer is None:
        return f"{_NAMES[stem]}.{kind}" if stem in _NAMES else name
    number, part = layer.groups()
    return f"model.layers.{number}.{_LAYER[part]}.{kind}" if part in _LAYER else name


def _dequantized(place: Path, tensor: gguf.ReaderTensor) -> np.ndarray:
    try:
        return gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError as error:
        raise ValueError(f"{place}: tensor {tensor.name} is {tensor.tensor_type.name}, not supported") from error
