"""The config.json of published families, read and written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from aco_jax.models.config import PAD, Architecture, Config
from aco_jax.models.families import FAMILIES, family_of

Settings = Mapping[str, Any]  # a parsed config.json

ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
}


def config_of(settings: Settings, own_head: bool = False) -> Config:
    """The network that a parsed config.json describes.

    Args:
      own_head: whether the file holds an output matrix other than the embedding: a T5 config may not say so.

    Raises:
      ValueError: the family or a setting of it is not supported, or a setting is missing.
    """
    family = settings.get("model_type")
    try:
        match family:
            case "t5":
                return _read_t5(settings, own_head)
            case "bert":
                return _read_bert(settings)
            case "llama" | "qwen2" | "qwen3":
                return _read_llama(settings)
    except KeyError as error:
        raise ValueError(f"setting {error} is missing") from error
    raise ValueError(f"model_type is {family!r}, expected one of {', '.join(FAMILIES)}")


def settings_of(config: Config) -> dict[str, Any]:
    """What config.json says of this network.

    Raises:
      ValueError: no family has this network.
    """
    family = family_of(config)
    settings = {"model_type": family} | {"t5": _write_t5, "bert": _write_bert}.get(family, _write_llama)(config)
    own = dataclasses.replace(config, dropout=0.0, gate=Config.gate)
    try:
        other = _differences(own, config_of(settings))
    except ValueError as error:
        other = str(error)
    if other:
        raise ValueError(f"{family} is the nearest of {', '.join(FAMILIES)}, and has no such network: {other}")
    return settings


def classifier_of(settings: Settings) -> str:
    """The class that reads scores at the last valid token of the decoder that `settings_of` described.

    Raises:
      ValueError: the family has an encoder.
    """
    if settings["model_type"] in ("t5", "bert"):
        raise ValueError(f"{settings['model_type']} has an encoder; scores are kept by decoders only")
    return str(settings["architectures"][0]).replace("ForCausalLM", "ForSequenceClassification")


def _differences(own: Config, families: Config) -> str:
    """What a network has that its family has otherwise; empty where nothing differs."""
    pairs: list[tuple[Any, Any]] = [(own, families), (own.architecture, families.architecture)]
    return ", ".join(
        f"{field.name} is {getattr(mine, field.name)!r}, there {getattr(theirs, field.name)!r}"
        for mine, theirs in pairs
        for field in dataclasses.fields(mine)
        if field.name != "architecture" and getattr(mine, field.name) != getattr(theirs, field.name)
    )


def _read_t5(settings: Settings, own_head: bool) -> Config:
    shape = settings.get("feed_forward_proj", "relu")
    tied = settings.get("tie_word_embeddings") is not False
    _expect(settings, "pad_token_id", 0)
    return Config(
        vocab_size=settings["vocab_size"],
        width=settings["d_model"],
        heads=settings["num_heads"],
        encoder_layers=settings["num_layers"],
        decoder_layers=settings.get("num_decoder_layers") or settings["num_layers"],
        mlp_width=settings["d_ff"],
        max_length=settings.get("n_positions", 512),
        copy=False,
        bos=settings.get("decoder_start_token_id") or 0,
        architecture=Architecture(
            position="relative",
            buckets=settings.get("relative_attention_num_buckets", 32),
            reach=settings.get("relative_attention_max_distance", 128),
            norm="scaled_rms",
            norm_epsilon=settings.get("layer_norm_epsilon", 1e-6),
            # Its authors' "gelu" is the tanh form where gated.
            activation="gelu_tanh" if shape == "gated-gelu" else _activation(shape.removeprefix("gated-")),
            gated=shape.startswith("gated-"),
            head_width=_unless(settings["d_kv"], settings["d_model"] / settings["num_heads"]),
            attention_scale=False,
            source_match=False,
            embedding_scale=False,
            tied=tied and not own_head,
            logit_scale=settings.get("scale_decoder_outputs", tied),
        ),
    )


def _write_t5(config: Config) -> dict[str, Any]:
    a = config.architecture
    shape = "gelu" if a.gated and a.activation == "gelu_tanh" else _published_activation(a)
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.width,
        "d_kv": a.head_width or config.width // config.heads,
        "d_ff": config.mlp_width,
        "num_heads": config.heads,
        "num_layers": config.encoder_layers,
        "num_decoder_layers": config.decoder_layers,
        "n_positions": config.max_length,
        "relative_attention_num_buckets": a.buckets,
        "relative_attention_max_distance": a.reach,
        "layer_norm_epsilon": a.norm_epsilon,
        "feed_forward_proj": f"gated-{shape}" if a.gated else shape,
        "tie_word_embeddings": a.tied,
        "scale_decoder_outputs": a.logit_scale,
        "decoder_start_token_id": config.bos,
        "pad_token_id": 0,
    }


def _read_bert(settings: Settings) -> Config:
    _expect(settings, "position_embedding_type", "absolute")
    _expect(settings, "is_decoder", False)
    _expect(settings, "pad_token_id", 0)
    return Config(
        vocab_size=settings["vocab_size"],
        width=settings["hidden_size"],
        heads=settings["num_attention_heads"],
        encoder_layers=settings["num_hidden_layers"],
        decoder_layers=0,
        mlp_width=settings["intermediate_size"],
        max_length=settings["max_position_embeddings"],
        copy=False,
        architecture=Architecture(
            norm="layer",
            norm_epsilon=settings.get("layer_norm_eps", 1e-12),
            post_norm=True,
            activation=_activation(settings.get("hidden_act", "gelu")),
            bias="all",
            source_match=False,
            embedding_scale=False,
            embedding_norm=True,
            token_types=settings["type_vocab_size"],
        ),
    )


def _write_bert(config: Config) -> dict[str, Any]:
    a = config.architecture
    return {
        "architectures": ["BertModel"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.encoder_layers,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_length,
        "type_vocab_size": a.token_types,
        "layer_norm_eps": a.norm_epsilon,
        "hidden_act": _published_activation(a),
        "pad_token_id": 0,
    }


def _read_llama(settings: Settings) -> Config:
    family, width, heads = settings["model_type"], settings["hidden_size"], settings["num_attention_heads"]
    rotary = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    _expect(rotary, "rope_type", "default")
    _expect(rotary, "type", "default")
    _expect(rotary, "partial_rotary_factor", 1.0)
    for name in ("attention_bias", "mlp_bias", "use_sliding_window"):
        _expect(settings, name, False)
    head_width = settings.get("head_dim") or (128 if family == "qwen3" else width // heads)
    ends = settings.get("eos_token_id")
    begin = settings.get("bos_token_id")
    if begin is None:  # such a tokenizer begins a text with the token that ended the one before
        begin = (ends[0] if isinstance(ends, list) else ends) or 0
    return Config(
        vocab_size=settings["vocab_size"],
        width=width,
        heads=heads,
        encoder_layers=0,
        decoder_layers=settings["num_hidden_layers"],
        mlp_width=settings["intermediate_size"],
        max_length=settings["max_position_embeddings"],
        copy=False,
        bos=begin,
        pad=PAD if settings.get("pad_token_id") == PAD else -1,
        architecture=Architecture(
            position="rotary",
            rotary_base=float(rotary.get("rope_theta") or settings.get("rope_theta") or 10_000.0),
            norm="scaled_rms",
            norm_epsilon=settings.get("rms_norm_eps", 1e-6),
            query_key_norm=family == "qwen3",
            activation=_activation(settings.get("hidden_act", "silu")),
            gated=True,
            bias="qkv" if family == "qwen2" else "none",
            kv_heads=_unless(settings.get("num_key_value_heads") or heads, heads),
            head_width=_unless(head_width, width / heads),
            source_match=False,
            embedding_scale=False,
            tied=settings.get("tie_word_embeddings", False),
        ),
    )


def _write_llama(config: Config) -> dict[str, Any]:
    a = config.architecture
    return {
        "architectures": [{"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}[family_of(config)] + "ForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "num_key_value_heads": a.kv_heads or config.heads,
        "head_dim": a.head_width or config.width // config.heads,
        "num_hidden_layers": config.decoder_layers,
        "intermediate_size": config.mlp_width,
        "max_position_embeddings": config.max_length,
        "rope_theta": a.rotary_base,
        "rms_norm_eps": a.norm_epsilon,
        "hidden_act": _published_activation(a),
        "tie_word_embeddings": a.tied,
        "bos_token_id": config.bos,
        "pad_token_id": PAD if config.pad == PAD else None,
    }


def _expect(settings: Settings, name: str, value: object) -> None:
    if settings.get(name) not in (None, value):
        raise ValueError(f"{name} is {settings[name]!r}, expected {value!r}")


def _unless(value: int, usual: float) -> int:
    return 0 if value == usual else value


def _activation(name: str) -> Any:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}, expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _published_activation(a: Architecture) -> str:
    return {ours: name for name, ours in reversed(ACTIVATIONS.items())}.get(a.activation, a.activation)
