"""Published families of language models, and what their tensors are called; `family_settings` has their config.json.

t5       encoder-decoder   Raffel et al. 2020; 1.0, and 1.1 / Flan with gates and an output matrix of its own
bert     encoder           Devlin et al. 2019; MiniLM
llama    decoder           Touvron et al. 2023; SmolLM2
qwen2    decoder           Yang et al. 2024, with biases on queries, keys and values
qwen3    decoder           Yang et al. 2025, with norms of queries and keys
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from aco_jax.models.config import Config

FAMILIES = ("t5", "bert", "llama", "qwen2", "qwen3")
HEAD, SCORE = "lm_head.weight", "score.weight"
UNUSED = {  # tensors in files of a family beside the network
    "t5": r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
    "bert": r"embeddings\.position_ids|pooler\..*|cls\..*",
    "llama": r".*\.rotary_emb\.inv_freq",
}

_T5_LAYER = {
    "own_norm.scale": "layer.0.layer_norm.weight",
    "own.query": "layer.0.SelfAttention.q",
    "own.key": "layer.0.SelfAttention.k",
    "own.value": "layer.0.SelfAttention.v",
    "own.out": "layer.0.SelfAttention.o",
    "cross_norm.scale": "layer.1.layer_norm.weight",
    "memory.query": "layer.1.EncDecAttention.q",
    "memory.key": "layer.1.EncDecAttention.k",
    "memory.value": "layer.1.EncDecAttention.v",
    "memory.out": "layer.1.EncDecAttention.o",
}
_BERT_LAYER = {
    "own_norm.scale": "attention.output.LayerNorm.weight",
    "own_norm.bias": "attention.output.LayerNorm.bias",
    "own.query": "attention.self.query",
    "own.key": "attention.self.key",
    "own.value": "attention.self.value",
    "own.out": "attention.output.dense",
    "mlp_norm.scale": "output.LayerNorm.weight",
    "mlp_norm.bias": "output.LayerNorm.bias",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
}
_LLAMA_LAYER = {
    "own_norm.scale": "input_layernorm.weight",
    "own.query_norm.scale": "self_attn.q_norm.weight",
    "own.key_norm.scale": "self_attn.k_norm.weight",
    "own.query": "self_attn.q_proj",
    "own.key": "self_attn.k_proj",
    "own.value": "self_attn.v_proj",
    "own.out": "self_attn.o_proj",
    "mlp_norm.scale": "post_attention_layernorm.weight",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
_T5 = {
    "embedding": "shared.weight",
    "encoder_position": "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder_position": "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "encoder_norm.scale": "encoder.final_layer_norm.weight",
    "decoder_norm.scale": "decoder.final_layer_norm.weight",
    "head": "lm_head",
}
_BERT = {
    "embedding": "embeddings.word_embeddings.weight",
    "encoder_position": "embeddings.position_embeddings.weight",
    "type_embedding": "embeddings.token_type_embeddings.weight",
    "embedding_norm.scale": "embeddings.LayerNorm.weight",
    "embedding_norm.bias": "embeddings.LayerNorm.bias",
}
_LLAMA = {"embedding": "model.embed_tokens.weight", "decoder_norm.scale": "model.norm.weight", "head": "lm_head"}


def family_of(config: Config) -> str:
    """The family that is nearest to this network."""
    a = config.architecture
    if not a.rotates:
        return "t5" if a.position == "relative" else "bert"
    return "qwen3" if a.query_key_norm else "qwen2" if a.bias == "qkv" else "llama"


def published_name(config: Config, name: str) -> str:
    """What the family calls the parameter of a dotted name, as decoder_0.own.query.kernel."""
    family = family_of(config)
    whole, layers = {"t5": (_T5, _T5_LAYER), "bert": (_BERT, _BERT_LAYER)}.get(family, (_LLAMA, _LLAMA_LAYER))
    layer = re.match(r"(encoder|decoder)_(\d+)\.", name)
    if layer is None:
        return _look(whole, name)
    side, number = layer.groups()
    inner = layers | _t5_mlp(side, config.architecture.gated) if family == "t5" else layers
    place = {"t5": f"{side}.block.{number}.", "bert": f"encoder.layer.{number}."}.get(family, f"model.layers.{number}.")
    return place + _look(inner, name[layer.end() :])


def canonical(family: str, name: str) -> str:
    """A tensor's name as this module has it: a base model saved alone has another prefix, old files other norms."""
    if family == "bert":
        name = name.removeprefix("bert.")
        return re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    if family != "t5" and name.startswith(("embed_tokens.", "layers.", "norm.")):
        return f"model.{name}"
    return name


def is_unused(family: str, name: str) -> bool:
    """Whether a tensor is known to stand in such files beside the network: heads of pre-training, constants."""
    return re.fullmatch(UNUSED.get(family, UNUSED["llama"]), name) is not None


def copies_of_embedding(family: str, tied: bool) -> tuple[str, ...]:
    """Tensors that some files hold beside the embedding they are equal to."""
    tables = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight") if family == "t5" else ()
    return (*tables, HEAD) if tied else tables


def _look(table: Mapping[str, str], name: str) -> str:
    if name in table:
        return table[name]
    stem, kind = name.rsplit(".", 1)
    return f"{table[stem]}.{'weight' if kind == 'kernel' else kind}"


def _t5_mlp(side: str, gated: bool) -> dict[str, str]:
    place = "layer.1" if side == "encoder" else "layer.2"
    inner = f"{place}.DenseReluDense"
    wide = {"mlp.gate": f"{inner}.wi_0", "mlp.up": f"{inner}.wi_1"} if gated else {"mlp.up": f"{inner}.wi"}
    return {"mlp_norm.scale": f"{place}.layer_norm.weight", "mlp.down": f"{inner}.wo"} | wide
