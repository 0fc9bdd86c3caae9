"""Tokenizers: the special block, what survives encoding, rows in bounded room, pretrained folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from aco_jax.data import tokens
from aco_jax.data.records import InputError
from aco_jax.data.tokens import Special, Tokenizer

TEXTS = [
    "Sony BRAVIA KDL-40V2500 40 inch lcd tv black",
    "sony bravia kdl40v2500 lcd television",
    "drill 18 V",
] * 9


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return tokens.train(TEXTS, 512)


def test_special_ids_are_disjoint_and_fill_the_block() -> None:
    special = Special.at(0)
    ids = [getattr(special, name) for name in ("pad", "bos", "eos", "mask", "sep")]
    ids += [special.denoise, special.ask, special.rewrite, special.read]
    for of, size in ((special.relation, 8), (special.table, 8), (special.column, 24), (special.level, 8)):
        ids += [of(i) for i in range(size)]
    ids += [special.state(i) for i in range(80)] + [special.action(i) for i in range(16)]
    assert ids == list(range(9 + 8 + 8 + 24 + 8 + 80 + 16)) == list(range(special.count))
    assert special.column(24) == special.column(0)
    for call, i in ((special.relation, 8), (special.table, -1), (special.state, 80), (special.action, 16)):
        with pytest.raises(ValueError, match="expected 0"):
            call(i)


def test_contains_knows_text_from_specials_in_both_places() -> None:
    np.testing.assert_array_equal(
        Special.at(0).contains(np.array([0, 1, 152, 153, 400])), [True, True, True, False, False]
    )
    np.testing.assert_array_equal(  # 100 stands for a pretrained vocabulary's token 0: text
        Special.at(100).contains(np.array([0, 1, 99, 100, 101, 252, 253])),
        [True, False, False, False, True, True, False],
    )


def test_a_code_shares_its_tokens_however_it_is_hyphenated(trained: Tokenizer) -> None:
    joined, apart = trained.encode_lists(["kdl40v2500", "KDL-40V2500"])
    assert len(joined) <= 5
    assert [i for i in apart if i in joined] == joined
    assert len(apart) == len(joined) + 1


def test_a_word_is_the_same_tokens_first_or_last(trained: Tokenizer) -> None:
    first, second, both = trained.encode_lists(["  Drill", "sony", "SONY\tdrill"])
    assert both == second + first


def test_encode_pads_cuts_and_keeps_clear_of_the_specials(trained: Tokenizer) -> None:
    found = trained.encode(["drill", "", "sony bravia lcd tv black drill"], 4)
    assert found.shape == (3, 4)
    assert found.dtype == np.int32
    assert (found[1] == 0).all()
    assert (found[0, 1:] == 0).all()
    assert (found[2] >= trained.special.count).all()
    assert found.max() < trained.vocab_size <= 512


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(text=st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=30))
def test_decoding_gives_the_text_back_lower_cased_in_single_spaces(trained: Tokenizer, text: str) -> None:
    ids = trained.encode_lists([text])[0]
    special = trained.special
    assert trained.decode([special.bos, *ids, special.eos, special.state(3), 0]) == " ".join(text.lower().split())


def test_other_scripts_and_spelled_specials_are_text(trained: Tokenizer) -> None:
    for text in ("naïve café 日本 ½ ″", "<mask> <pad> [SEP]"):
        ids = trained.encode_lists([text])[0]
        assert min(ids) >= trained.special.count
    assert trained.decode(trained.encode_lists(["日本 <mask>"])[0]) == "日本 <mask>"


def test_training_and_saving_are_exact(trained: Tokenizer, tmp_path: Path) -> None:
    again = tokens.train(iter(TEXTS), 512)
    trained.save(tmp_path / "deep" / "er")
    loaded = tokens.load(tmp_path / "deep" / "er")
    assert trained.encode_lists(TEXTS) == again.encode_lists(TEXTS) == loaded.encode_lists(TEXTS)
    assert (loaded.special, loaded.vocab_size) == (trained.special, trained.vocab_size)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vocab_size 300: expected at least 409"):
        tokens.train(TEXTS, 300)
    with pytest.raises(InputError, match=r"tokenizer.json: no such file, expected a saved tokenizer"):
        tokens.load(tmp_path)
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        tokens.from_pretrained(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer.json: .*, expected a saved tokenizer"):
        tokens.from_pretrained(tmp_path)


def test_a_spoilt_layout_is_named(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    (tmp_path / "layout.json").write_text('{"offset": 0, "special": {}}')
    with pytest.raises(InputError, match=r"layout.json: .*, expected what a saved tokenizer has"):
        tokens.load(tmp_path)


def test_rows_name_table_and_columns_and_leave_missing_ones_out(trained: Tokenizer) -> None:
    special = trained.special
    rows = [{"a": "drill", "b": "", "c": "sony"}, {"c": "lcd", "x": "black"}]
    found = tokens.encode_rows(trained, rows, ("a", "b", "c"), [0, 3], 8)
    drill, sony, lcd = (ids for ids in trained.encode_lists(["drill", "sony", "lcd"]))
    first = [special.table(0), special.column(0), *drill, special.column(2), *sony]
    second = [special.table(3), special.column(2), *lcd]
    assert found[0, : len(first)].tolist() == first
    assert found[1].tolist() == second + [0] * (8 - len(second))
    np.testing.assert_array_equal(tokens.encode_rows(trained, rows[:1], ("a", "b", "c"), 0, 8)[0], found[0])


def test_a_long_value_gives_way_to_the_short_ones(trained: Tokenizer) -> None:
    row = {"text": "lcd " * 40, "a": "drill", "b": "black"}
    found = tokens.encode_rows(trained, [row], ("text", "a", "b"), 0, 12)[0]
    short = trained.encode_lists(["drill", "black"])
    tail = [trained.special.column(1), *short[0], trained.special.column(2), *short[1]]
    assert found[-len(tail) :].tolist() == tail
    assert (found != 0).all()


def test_two_long_values_share_the_room(trained: Tokenizer) -> None:
    row = {"a": "lcd " * 40, "b": "tv " * 40, "c": "drill"}
    found = tokens.encode_rows(trained, [row], ("a", "b", "c"), 0, 20)[0].tolist()
    starts = [found.index(trained.special.column(j)) for j in range(3)]
    short = len(trained.encode_lists(["drill"])[0])
    share = (20 - 4 - short) // 2
    assert starts == [1, 2 + share, 3 + 2 * share]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 9, 30])
def test_no_length_is_overrun(trained: Tokenizer, length: int) -> None:
    rows = [{"a": "sony bravia kdl-40v2500", "b": "drill 18 v", "c": "lcd"}] * 2
    found = tokens.encode_rows(trained, rows, ("a", "b", "c"), 1, length)
    assert found.shape == (2, length)
    assert found[0, 0] == trained.special.table(1)


def _word_level(folder: Path, words: list[str]) -> Path:
    backend = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens(["[SEP]"])
    backend.enable_padding(length=7)
    backend.enable_truncation(2)
    backend.save(str(folder / "tokenizer.json"))
    return folder


def test_a_pretrained_folder_keeps_its_ids_and_token_zero_is_not_padding(tmp_path: Path) -> None:
    loaded = tokens.from_pretrained(_word_level(tmp_path, ["zero", "one", "two", "[UNK]", "[SEP]"]))
    assert loaded.special == Special.at(5)
    assert loaded.vocab_size == 5 + 153
    assert loaded.encode_lists(["one zero two [SEP]"])[0] == [1, 5, 2, 3, 3, 3]
    assert loaded.encode(["zero one zero"], 4).tolist() == [[5, 1, 5, 0]]
    assert loaded.decode([loaded.special.bos, 5, 1, 0, loaded.special.eos]) == "zero one"
    loaded.save(tmp_path / "saved")
    assert tokens.load(tmp_path / "saved").encode_lists(["two zero"]) == [[2, 5]]


def test_a_pretrained_folder_without_tokenizer_json_is_converted(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "saw", "dr", "##ill"]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    loaded = tokens.from_pretrained(tmp_path)
    assert loaded.encode_lists(["Drill saw"]) == [[6, 7, 5]]
    assert loaded.special.first == len(words)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="expected the files of a tokenizer"):
        tokens.from_pretrained(empty)


def test_texts_are_translated_with_their_ends(tmp_path: Path) -> None:
    """From byte pairs learned here to words of a folder: what has no end there has none here."""
    written = tokens.train(["zero one two"] * 4, 153 + 300)
    read = tokens.from_pretrained(_word_level(tmp_path, ["zero", "one", "two", "[UNK]", "[SEP]"]))
    lists = written.encode_lists(["two zero", "one", "one two zero"])
    eos = written.special.eos
    rows = tokens.pad([[*lists[0], eos], lists[1], [*lists[2], eos]], max(map(len, lists)) + 1)
    end = read.special.eos
    expected = [[2, 5, end, 0], [1, 0, 0, 0], [1, 2, 5, end]]
    np.testing.assert_array_equal(tokens.translate(rows, written, read, 4), expected)
    np.testing.assert_array_equal(tokens.translate(rows, written, read, 3)[2], [1, 2, 5])
