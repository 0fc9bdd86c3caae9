"""What agents begin from: published weights, with the tokens that steer the agents added to their vocabulary.

Base and actor begin from an encoder or an encoder-decoder. Rewriter, reader and reward model learn adapters of one
decoder, the trunk, which nothing trains and which is kept in int8 (Hu et al. 2021, LoRA; Dettmers et al. 2023, QLoRA).
A name is a folder of a published family, a GGUF file, or an installed package that carries either.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aco_jax.data import tokens
from aco_jax.data.records import InputError
from aco_jax.data.tokens import Tokenizer
from aco_jax.models import installed, pretrained, quantization, transformer
from aco_jax.types import Params

ENDS = ("</s>", "<|im_end|>", "<|endoftext|>", "[SEP]")  # what ends a text in published vocabularies


def tokenizer(base: str, trunk: str) -> Tokenizer | None:
    """The tokenizer of the names that are given, None where none is. Raises InputError where two differ."""
    found = {name: _tokenizer(name) for name in (base, trunk) if name}
    vocabularies = [each.backend.get_vocab() for each in found.values()]
    if len(vocabularies) == 2 and vocabularies[0] != vocabularies[1]:
        raise InputError(f"{base} and {trunk} have different tokenizers, expected the same: agents share their tokens")
    return next(iter(found.values()), None)


@functools.lru_cache(maxsize=4)
def config_of(name: str) -> transformer.Config:
    """The network of a name, with its own tokens only. Raises InputError."""
    return _read(name)[1]


def base_config(name: str, tokenizer: Tokenizer, decoder_layers: int) -> transformer.Config:
    """The network that base and actor are; an encoder alone gets a decoder that copies. Raises InputError."""
    config = _with_tokens(config_of(name), tokenizer)
    if not config.encoder_layers:
        raise InputError(f"--config.model.base={name}: a decoder alone, expected an encoder; --config.model.trunk?")
    if config.decoder_layers:
        return config
    form = dataclasses.replace(config.architecture, source_match=True)
    return dataclasses.replace(config, decoder_layers=decoder_layers, copy=True, architecture=form)


def base(key: jax.Array, name: str, tokenizer: Tokenizer, config: transformer.Config) -> Params:
    """The parameters that base and actor begin with; what `base_config` added is fresh. Raises InputError."""
    published, own = _read(name)
    return transformer.init(key, config) | _extended(published, own, tokenizer, name)


def trunk_config(name: str, tokenizer: Tokenizer) -> transformer.Config:
    """The network of the trunk. Raises InputError."""
    config = _with_tokens(config_of(name), tokenizer)
    if config.encoder_layers:
        raise InputError(f"--config.model.trunk={name}: has an encoder, expected a decoder; --config.model.base?")
    return config


def trunk(name: str, tokenizer: Tokenizer) -> Params:
    """The trunk in int8. Raises InputError."""
    published, own = _read(name)
    return quantization.quantize(_extended(published, own, tokenizer, name))


def _place(name: str) -> Path:
    path = Path(name)
    return path if path.exists() else installed.weights_of(name)


def _tokenizer(name: str) -> Tokenizer:
    try:
        place = _place(name)
        if place.is_dir():
            return tokens.from_pretrained(place)
        from aco_jax.models import gguf_files  # the library that it needs is an extra

        return tokens.from_json(gguf_files.tokenizer_of(place))
    except (ValueError, ImportError) as error:
        raise InputError(f"{name}: {error}") from None


def _read(name: str) -> tuple[Params, transformer.Config]:
    """Parameters and config as published; of rotated pairs the halves are apart, which is faster."""
    try:
        place = _place(name)
        if place.is_dir():
            return pretrained.from_hugging_face(place)
        from aco_jax.models import gguf_files

        return pretrained.halves_apart(*gguf_files.from_gguf(place))
    except (ValueError, ImportError) as error:
        raise InputError(f"{name}: {error}") from None


def _with_tokens(config: transformer.Config, tokenizer: Tokenizer) -> transformer.Config:
    return dataclasses.replace(config, vocab_size=tokenizer.vocab_size, pad=0, bos=tokenizer.special.bos)


def _extended(params: Params, config: transformer.Config, tokenizer: Tokenizer, name: str) -> Params:
    """With rows for the special tokens in the embedding, and columns in an output matrix of its own.

    They are drawn like the rows of the published tokens (Hewitt 2021, Initializing New Word Embeddings), but for the
    begin and the end of a text, which are the published ones, and for the word that is token 0 there.
    """
    special, backend = tokenizer.special, tokenizer.backend
    if config.vocab_size < special.first:
        raise InputError(f"{name}: {config.vocab_size} embeddings, expected one for each of {special.first} tokens")
    ends = [found for end in ENDS if (found := backend.token_to_id(end)) is not None]
    same = {special.first: 0, special.bos: config.bos} | ({special.eos: ends[0]} if ends else {})

    def grown(table: jax.Array) -> jax.Array:
        known = np.asarray(table)[: special.first]
        drawn = np.random.default_rng(0).normal(known.mean(axis=0), known.std(axis=0), (special.count, known.shape[1]))
        for ours, theirs in same.items():
            drawn[ours - special.first] = known[theirs]
        return jnp.asarray(np.concatenate([known, drawn]), jnp.float32)

    found = params | {"embedding": grown(params["embedding"])}
    if not config.architecture.tied and config.decoder_layers:
        found["head"] = {"kernel": grown(params["head"]["kernel"].T).T}
    return found
