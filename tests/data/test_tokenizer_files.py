"""Tokenizers written for Hugging Face's libraries give there the ids that they give here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers
from transformers import AutoTokenizer

from aco_jax.data import tokenizer_files, tokens
from aco_jax.data.files import InputError
from aco_jax.data.tokens import Special

TEXTS = ["Red lamp 40W", "blue chair, steel legs", "LAMP <aco:ask> x", "caf\xe9 №7 \U0001f600", "! !", "[PAD] lamp"]


def trained():
    return tokens.train(TEXTS * 3, vocab_size=153 + 300)


def byte_level(added=()):
    """A vocabulary as GPT-2's, whose token 0 is text; or whose token 0 is special, as SmolLM2's."""
    letters = [*added, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    letters.insert(len(added), letters.pop(letters.index("!")))
    backend = tokenizers.Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(added))
    return backend


def words(special):
    """A word-piece vocabulary, as BERT's."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "red": 2, "lamp": 3, "!": 4}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["[PAD]"] * special)
    return backend


def pieces(special):
    """A unigram vocabulary, as T5's."""
    found = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((letter, -3.0) for letter in "\u2581abcdelmnpr")]
    backend = tokenizers.Tokenizer(models.Unigram(found, unk_id=2, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.add_special_tokens(["<pad>", "</s>"][: 2 * special])
    return backend


@pytest.fixture
def made(tmp_path):
    def make(backend):
        if not isinstance(backend, tokenizers.Tokenizer):
            return backend
        backend.save(str(tmp_path / "tokenizer.json"))
        return tokens.from_pretrained(tmp_path)

    return make


@pytest.mark.parametrize(
    "backend",
    [trained(), byte_level(), byte_level(["<|endoftext|>", "<|im_start|>"]), words(True), words(False), pieces(True)],
    ids=["trained", "text at 0", "special at 0", "words", "words, 0 is a word", "pieces"],
)
def test_ids_and_texts_are_the_same_there(made, tmp_path, backend):
    tokenizer = made(backend)
    tokenizer_files.write(tokenizer, tmp_path / "out", 64)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    ours = tokenizer.encode_lists(TEXTS)
    assert theirs(TEXTS)["input_ids"] == ours
    assert theirs.model_max_length == 64
    special = tokenizer.special
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, special.bos, special.eos)
    assert (theirs.mask_token_id, theirs.sep_token_id) == (special.mask, special.sep)
    for ids in ours:
        row = [special.bos, *ids, special.eos, 0]
        assert theirs.decode(row, skip_special_tokens=True).strip() == tokenizer.decode(row)
    padded = theirs(TEXTS, padding="max_length", max_length=40)["input_ids"]
    np.testing.assert_array_equal(padded, tokenizer.encode(TEXTS, 40))


def test_the_tokens_that_steer_can_be_spelled_where_that_is_asked_for(tmp_path):
    tokenizer = trained()
    tokenizer_files.write(tokenizer, tmp_path, 64)
    theirs, special = AutoTokenizer.from_pretrained(tmp_path), tokenizer.special
    text = "<aco:ask><aco:relation_1><aco:table_0><aco:column_3>lamp"
    ids = theirs(text, split_special_tokens=False)["input_ids"]
    steer = [special.ask, special.relation(1), special.table(0), special.column(3)]
    assert ids == [*steer, *tokenizer.encode_lists(["lamp"])[0]]


def test_every_id_of_the_block_has_a_name_of_its_own():
    for first in (0, 500):
        special = Special.at(first)
        names = tokenizer_files.names_of(special)
        within = set(range(first + 1, first + special.count))
        assert set(names) == {0} | within
        assert len(set(names.values())) == special.count
        assert names[special.action(15)] == "<aco:action_15>"
        assert names[special.ask] == "<aco:ask>"


def test_what_cannot_be_kept_is_refused(made, tmp_path):
    with pytest.raises(InputError, match="a Unigram model whose token 0 is text"):
        tokenizer_files.write(made(pieces(False)), tmp_path / "out", 64)
    backend = byte_level()
    content = json.loads(backend.to_str())
    content["model"]["vocab"]["<aco:ask>"] = len(content["model"]["vocab"])
    with pytest.raises(InputError, match="<aco:ask> is a token of its own"):
        tokenizer_files.write(made(tokenizers.Tokenizer.from_str(json.dumps(content))), tmp_path / "out", 64)
