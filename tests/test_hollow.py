"""Responses that say nothing new are written as said, and what is taught of them holds the other ways back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import hollow
from aco_jax.agents import reward
from aco_jax.data.tokens import Special
from aco_jax.types import Candidates

SPECIAL = Special.at(0)
WORD = SPECIAL.count  # the first token that is text
B, K, T, ROOM = 400, 3, 8, 5
SAME, SEP, EOS = SPECIAL.relation(1), SPECIAL.sep, SPECIAL.eos


def test_responses_before_and_after_are_written_as_said() -> None:
    table, first, second = SPECIAL.table(0), SPECIAL.column(0), SPECIAL.column(1)
    same, sep, eos = SPECIAL.relation(1), SPECIAL.sep, SPECIAL.eos
    a, b, c, d = range(WORD, WORD + 4)
    anchor, candidate = [table, first, a, b, 0, 0, 0, 0], [table, first, c, second, d, 0, 0, 0]
    ours, theirs, reason = (np.array([x], np.int32) for x in (anchor, candidate, [a, c, eos, eos]))
    found = hollow.changes(SPECIAL, ours, theirs, reason)
    begun = [same, table, first, a, b, sep, table]
    facts = [first, c, second, d]
    expected = {
        "repeated facts": ([*facts, eos], [*facts, *facts, eos]),
        "longer reason": ([*facts, sep, a, c, eos], [*facts, sep, a, c, a, c, eos]),
        "repeated separators": ([*facts, sep, a, c, eos], [*facts, sep, sep, sep, a, c, eos]),
        "repeated ends": ([*facts, eos], [*facts, eos, eos, eos]),
        "other order": ([*facts, eos], [second, d, first, c, eos]),
        "empty reason": ([*facts, eos], [*facts, sep, eos]),
        "copied reason": ([*facts, eos], [*facts, sep, first, a, b, eos]),
    }
    assert set(found) == set(expected) == set(hollow.CHANGES)
    for name, pair in found.items():
        for written, wanted in zip(pair, expected[name], strict=True):
            assert written.shape == (1, 2 * 8 + 4 + 4), name
            assert np.trim_zeros(np.asarray(written[0]), "b").tolist() == [*begun, *wanted], name


@pytest.fixture(scope="module")
def given() -> tuple[np.ndarray, np.ndarray, np.ndarray, reward.Hollow]:
    """Anchors, records and texts of other words each, and lessons; the last anchor has no candidate in row 0."""
    rng = np.random.default_rng(0)
    anchor = np.where(np.arange(T) < rng.integers(2, T + 1, (B, 1)), rng.integers(WORD, WORD + 50, (B, T)), 0)
    texts = np.where(np.arange(T) < rng.integers(1, T + 1, (9, 1)), WORD + 60 + 10 * np.arange(9)[:, None], 0)
    texts = (texts + (texts > 0) * np.arange(T)).astype(np.int32)
    record = rng.integers(-1, 9, (B, 2, K)).astype(np.int32)
    record[:, 0, 0], record[-1, 0] = rng.integers(0, 9, B), -1
    none = np.zeros(record.shape, np.float32)
    candidates = Candidates(record, none[..., None], none, none, none)
    found = hollow.lessons(
        SPECIAL, jax.random.key(0), jnp.asarray(anchor, jnp.int32), candidates, jnp.asarray(texts), 2, ROOM
    )
    return anchor, record, texts, jax.device_get(found)


def test_a_hollow_response_is_the_plain_one_and_words_that_add_nothing(given) -> None:
    anchor, record, texts, found = given
    assert found.mask.tolist() == [True] * (B - 1) + [False]
    kinds, lengths, slots, relations = set(), set(), set(), set()
    for b in range(B - 1):
        plain, changed = (np.trim_zeros(x[b], "b").tolist() for x in (found.plain, found.hollow))
        ours = anchor[b][anchor[b] > 0].tolist()
        theirs = plain[len(ours) + 2 : -1]
        relations.add(plain[0])
        assert plain == [plain[0], *ours, SEP, *theirs, EOS]
        slots.add([texts[r][texts[r] > 0].tolist() if r >= 0 else None for r in record[b, 0]].index(theirs))
        assert changed[: len(plain) - 1] == plain[:-1]
        assert changed[-1] == EOS
        tail = changed[len(plain) - 1 : -1]
        lengths.add(len(tail))
        kind = "facts" if tail[0] >= WORD else {SEP: "separators", EOS: "ends"}[tail[0]]
        kinds.add(f"repeated {kind}")
        assert set(tail) <= set(theirs) if kind == "facts" else len(set(tail)) == 1
    assert kinds == set(hollow.TAUGHT) < set(hollow.CHANGES)
    assert lengths == set(range(1, ROOM + 1))
    assert slots == set(range(K))
    assert relations == {SPECIAL.relation(1), SPECIAL.relation(2)}


def test_no_response_is_longer_than_those_that_the_reward_model_knows(given) -> None:
    *_, found = given
    assert found.plain.shape == found.hollow.shape == (B, 2 * T + ROOM + 4)
