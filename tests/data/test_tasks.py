"""What the language models learn from: the form of every example, and where its words come from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from aco_jax.data import records, tasks, tokens

LEFT = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "name": ["sony bravia kdl40v2500 television", "bosch drill gsr18", "canon ixus 95is camera", "plain mug"],
        "maker": ["sony", "bosch", "canon", ""],
        "price": ["399.90", "89.50", "120.25", "4.75"],
    }
)
RIGHT = pd.DataFrame(
    {
        "id": ["p", "q", "r", "s"],
        "name": ["bravia television kdl40v2500", "gsr18 cordless drill", "ixus 95is digital camera", "glass jug"],
        "maker": ["sony", "bosch", "canon", "leerdam"],
        "price": ["402.00", "91.00", "119.00", "6.35"],
    }
)
RELATIONS = (records.Relation("same", "one thing"), records.Relation("fits", "goes with"))


@pytest.fixture(scope="module")
def setting():
    dataset = records.from_frames({"left": LEFT, "right": RIGHT}, RELATIONS)
    texts = [dataset.text(record) for record in range(dataset.size)]
    return tasks.fit(dataset, tokens.train(texts * 3, 460), source_length=40, target_length=20)


def rng():
    return np.random.default_rng(0)


def many(setting, times=20):
    return np.tile(np.arange(setting.dataset.size), times)


def words_of(setting, row):
    return setting.tokenizer.decode(row).split()


def test_amounts_are_never_asked_about(setting):
    assert setting.silent == {"price"}
    assert setting.titles == ("name", "name")


@pytest.mark.parametrize("task", [tasks.denoise, tasks.ask, tasks.rewrite])
def test_examples_are_padded_int32_that_end(setting, task):
    found = task(rng(), setting, many(setting))
    each = tasks.SUBQUERIES if task is tasks.rewrite else 1
    assert found.source.shape == (160 * each, 40)
    assert found.target.shape == (160 * each, 20)
    np.testing.assert_array_equal(found.record, np.repeat(many(setting), each))
    for array in found:
        assert array.dtype == np.int32
    for array in (found.source, found.target):
        filled = array > 0
        np.testing.assert_array_equal(filled, np.sort(filled, axis=1)[:, ::-1])
    last = found.target[np.arange(len(found.target)), (found.target > 0).sum(axis=1) - 1]
    np.testing.assert_array_equal(last, setting.tokenizer.special.eos)


def test_the_same_seed_gives_the_same_examples(setting):
    for task in (tasks.denoise, tasks.ask, tasks.rewrite):
        for a, b in zip(task(rng(), setting, range(8)), task(rng(), setting, range(8)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_denoise_restores_the_record(setting):
    found = tasks.denoise(rng(), setting, many(setting))
    special = setting.tokenizer.special
    np.testing.assert_array_equal(found.source[:, 0], special.denoise)
    rows = [setting.dataset.row(record) for record in range(8)]
    clean = tasks.encode(setting, rows, range(8), 19)
    for target, record in zip(found.target, found.record, strict=True):
        np.testing.assert_array_equal(target[target > special.eos], clean[record][clean[record] > 0])
    alone = (found.source > 0).sum(axis=1) == 1
    assert 0 < alone.mean() < 0.3
    assert (found.source == special.mask).any(axis=1).mean() > 0.2


def guard(setting, target):
    special = setting.tokenizer.special
    sep = int(np.flatnonzero(target == special.sep)[0])
    columns = target[2:sep] - special.first_column
    return target[0] - special.first_table, target[1] - special.first_level, columns, target[sep + 1 :]


def test_a_related_query_speaks_of_what_the_anchor_shows(setting):
    found = tasks.ask(rng(), setting, many(setting), unrelated=0.0)
    special = setting.tokenizer.special
    names = setting.dataset.columns
    for source, target, record in zip(found.source, found.target, found.record, strict=True):
        assert source[0] == special.ask
        assert source[1] in (special.relation(1), special.relation(2))
        table, level, columns, words = guard(setting, target)
        assert table == 1 - setting.dataset.table_of[record]
        assert 0 <= level <= 4
        assert 1 <= len(columns) <= 3
        assert "price" not in {names[column] for column in columns}
        assert np.isin(words[words > special.eos], source).all()


@pytest.fixture
def partners():
    """The camera, record 2 and 6, goes with itself; of the others nothing is known."""
    found = np.full((8, 2), -1, np.int32)
    found[2, 1], found[6, 0] = 6, 2
    return found


def test_a_query_holds_what_the_partner_says(setting, partners):
    """The partner of "canon ixus 95is camera" says all of its words; were it the television, nothing would be held."""
    found = tasks.ask(rng(), setting, np.full(60, 2), partners, unrelated=0.0)
    texts = {setting.tokenizer.decode(guard(setting, target)[3]) for target in found.target}
    assert texts
    for text in texts:
        assert set(text.replace("-", "").split()) <= {"canon", "ixus", "95is", "camera"}
    partners[2, 1] = 4  # the television
    found = tasks.rewrite(rng(), setting, np.full(60, 2), partners)
    after = [row[int(np.flatnonzero(row == setting.tokenizer.special.sep)[0]) + 1 :] for row in found.source]
    assert not any(row.any() for row in after)  # no word of the camera's is said there


def test_a_subquery_holds_what_the_partner_says(setting, partners):
    """Half of the cameras are in other words, some misspelt: what the partner does not say is not asked for."""
    found = tasks.rewrite(rng(), setting, np.full(60, 2), partners)
    said = {word.replace("-", "") for row in found.target[:, 1:] for word in words_of(setting, row)}
    assert {"ixus", "camera"} <= said <= set(setting.dataset.text(6).split())


def test_an_answered_query_is_read_beside_its_answer(setting, partners):
    plain, answered = (
        tasks.ask(rng(), setting, many(setting, 4), partners, unrelated=0.0, answered=answered)
        for answered in (False, True)
    )
    np.testing.assert_array_equal(plain.target, answered.target)
    known = np.isin(plain.record, [2, 6])
    np.testing.assert_array_equal(plain.source[~known], answered.source[~known])
    other = np.where(plain.record[known] == 2, 6, 2)
    rows = [setting.dataset.row(int(record)) for record in other]
    expected = tasks.ask_sources(
        setting, rows, other.tolist(), plain.source[known, 1] - setting.tokenizer.special.relation(0)
    )
    np.testing.assert_array_equal(answered.source[known], expected)


def test_codes_come_first_and_stand_in_the_order_of_the_record(setting):
    found = tasks.ask(rng(), setting, np.zeros(60, int), unrelated=0.0)
    said = [words_of(setting, guard(setting, target)[3]) for target in found.target]
    shown = [any("kdl40v2500" in word for word in words_of(setting, source)) for source in found.source]
    with_code = [any("kdl40v2500" in word for word in words) for words in said]
    assert np.mean(with_code) > 0.5
    assert not any(code and not seen for code, seen in zip(with_code, shown, strict=True))
    assert ["bravia", "kdl40v2500", "television"] in [[word for word in words if word != "sony"] for words in said]


def test_words_beyond_a_cut_source_are_not_asked_for(setting):
    tight = dataclasses.replace(setting, source_length=10)
    found = tasks.ask(rng(), tight, many(setting), unrelated=0.0)
    for source, target in zip(found.source, found.target, strict=True):
        words = guard(setting, target)[3]
        assert np.isin(words[words > setting.tokenizer.special.eos], source).all()


def test_a_code_takes_the_place_of_other_words(setting):
    code = setting.tokenizer.encode_lists(["kdl40v2500"])[0]
    tight = dataclasses.replace(setting, target_length=setting.guard_columns + 4 + len(code))
    found = tasks.ask(rng(), tight, np.zeros(60, int), unrelated=0.0)
    said = [setting.tokenizer.decode(guard(setting, target)[3]) for target in found.target]
    assert np.mean([text == "kdl40v2500" for text in said]) > 0.5


def test_an_unrelated_query_is_about_another_record_of_the_searched_table(setting):
    found = tasks.ask(rng(), setting, many(setting), unrelated=1.0)
    special = setting.tokenizer.special
    np.testing.assert_array_equal(found.source[:, 1], special.relation(0))
    for source, target, record in zip(found.source, found.target, found.record, strict=True):
        table, level, _, words = guard(setting, target)
        assert level == 0
        said = set(words_of(setting, words))
        start, stop = setting.dataset.offsets[table : table + 2]
        assert any(said <= set(setting.dataset.text(other).split()) for other in range(start, stop))
        assert len(said & set(setting.dataset.text(record).split())) <= 1
        assert source[0] == special.ask


def test_records_left_out_are_never_shown(setting):
    found = tasks.ask(rng(), setting, np.tile([0, 1, 4, 5], 30), unrelated=1.0)
    said = {word for target in found.target for word in words_of(setting, guard(setting, target)[3])}
    assert said <= set(" ".join(setting.dataset.text(record) for record in (0, 1, 4, 5)).split())


def test_subqueries_are_numbered_and_self_contained(setting):
    found = tasks.rewrite(rng(), setting, np.zeros(30, int))
    special = setting.tokenizer.special
    np.testing.assert_array_equal(found.target[:, 0], np.tile([special.level(m) for m in range(3)], 30))
    np.testing.assert_array_equal(found.source[:, 1], found.target[:, 0])
    assert (found.source[:, 0] == special.rewrite).all()
    assert ((found.source == special.sep).sum(axis=1) == 1).all()
    names, codes = found.target[0::3], found.target[1::3]
    # Of a wording that has but the code in common with the record, the code is all there is to ask for.
    assert np.mean([any(s.isdigit() for s in setting.tokenizer.decode(row)) for row in names]) < 0.2
    with_code = [words_of(setting, row) for row in codes]
    assert any("sony" in words and any("2500" in word for word in words) for words in with_code)


def test_sources_for_use_have_the_form_of_the_examples(setting):
    special = setting.tokenizer.special
    rows = [setting.dataset.row(0), setting.dataset.row(4)]
    asked = tasks.ask_sources(setting, rows, [0, 4], [1, 0])
    np.testing.assert_array_equal(asked[:, 0], special.ask)
    np.testing.assert_array_equal(asked[:, 1], [special.relation(1), special.relation(0)])
    np.testing.assert_array_equal(asked[:, 2], [special.table(0), special.table(1)])
    queries = setting.tokenizer.encode(["sony kdl40v2500", "bravia"], 10)
    written = tasks.rewrite_sources(setting, rows, [0, 4], queries, 2)
    assert written.shape == (2, 2, 40)
    np.testing.assert_array_equal(written[:, :, :2], [[[special.rewrite, special.level(m)] for m in range(2)]] * 2)
    np.testing.assert_array_equal(written[:, 0, 2:], written[:, 1, 2:])
    for (row, _), query in zip(written, queries, strict=True):
        sep = int(np.flatnonzero(row == special.sep)[0])
        after = row[sep + 1 :]
        np.testing.assert_array_equal(after[after > 0], query[query > 0])


def test_fact_tokens_hold_digits(setting):
    facts = tasks.fact_tokens(setting.tokenizer)
    assert facts.shape == (setting.tokenizer.vocab_size,)
    ids = setting.tokenizer.encode_lists(["40 v"])[0]
    assert [bool(facts[i]) for i in ids if setting.tokenizer.decode([i])] == [True, False]
    assert not facts[: setting.tokenizer.special.count].any()


def test_more_tables_are_all_searched():
    frames = {"x": LEFT, "y": RIGHT, "z": LEFT.assign(id=["e", "f", "g", "h"])}
    dataset = records.from_frames(frames)
    found = tasks.fit(dataset, tokens.train([dataset.text(r) for r in range(12)], 460), 40, 20)
    asked = tasks.ask(rng(), found, np.zeros(40, int))
    assert set(asked.target[:, 0] - found.tokenizer.special.first_table) == {1, 2}


def test_a_reason_holds_what_both_say_and_the_table_says_seldom(setting, partners):
    only = np.array([2, 6])
    found = tasks.explain(rng(), setting, np.tile(only, 20), partners, 28, 12)
    special = setting.tokenizer.special
    assert {array.dtype for array in found} == {np.dtype(np.int32)}
    assert (found.ours.shape, found.theirs.shape, found.reason.shape) == ((40, 28), (40, 28), (40, 12))
    assert set(found.relation.tolist()) == {1, 2}
    whole = 0
    for record, ours, theirs, reason in zip(np.tile(only, 20), *found[1:], strict=True):
        table = setting.dataset.table_of[record]
        assert (ours[0], theirs[0]) == (special.table(table), special.table(1 - table))
        words = words_of(setting, reason)
        assert set(words) <= {"ixus", "95is", "camera", "canon"}  # "digital" one of them says alone
        whole += "95is" in words
        text = reason[reason > special.eos]
        assert np.isin(text, ours).all()
        assert np.isin(text, theirs).all()
        assert reason[len(text)] == special.eos
    assert whole > 20  # the others are reworded


def test_a_reason_of_what_has_nothing_in_common_is_its_end_alone(setting):
    apart = np.full((8, 2), -1, np.int32)
    apart[3, 1], apart[7, 0] = 4, 0  # a mug and a television
    found = tasks.explain(rng(), setting, np.tile([3, 7], 5), apart, 28, 12)
    assert (found.reason[:, 0] == setting.tokenizer.special.eos).all()
    assert not found.reason[:, 1:].any()
