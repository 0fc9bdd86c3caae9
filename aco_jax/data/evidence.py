"""What the facts of two records say of each other, and what the whole catalogue adds.

`compare` gives the facts of a pair, oriented (anchor, other); `view` adds what can be seen only with the
other candidates and the other records in view. Neither depends on the columns of a data set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.sparse as sp

from aco_jax.data.descriptions import Description, Index, grams_of

SLOTS = 6  # attributes with items of their own; further ones count in the mean and least only
FACTS = (
    *("words", "grams", "title words", "title grams"),
    *("title within other", "other title within", "rarest missing", "other rarest missing"),
    *("missing share", "other missing share", "first word", "other first word"),
    *("code", "code conflict", "code left over", "other code left over"),
    *("numbers shared", "numbers left over", "other numbers left over", "number conflict"),
    *("price ratio", "price equal", "price missing", "length ratio"),
    *("attribute least", "attribute mean", "attribute missing"),
    *(f"{item} {slot}" for slot in range(SLOTS) for item in ("similar", "equal", "absent")),
)
VIEW = (
    "score",
    "rank",
    "margin",
    "share",
    "reverse rank",
    "reverse margin",
    "reverse share",
    "rival claim",
    "own repeats",
    "other repeats",
    "mutual",
    "direction",
)
NAMES = FACTS + VIEW
# Ranks and "mutual" choose the first believed pairs: a judge that reads them learns only that choice.
JUDGED = tuple(range(len(FACTS))) + tuple(
    len(FACTS) + VIEW.index(name) for name in ("margin", "reverse margin", "own repeats", "other repeats", "direction")
)
# Amounts are no part of the text that chooses the first believed pairs; attributes other than the first, which is the
# title, are a small one.
AMOUNTS = tuple(FACTS.index(name) for name in ("price ratio", "price equal", "price missing"))
ATTRIBUTES = tuple(FACTS.index(f"{item} {slot}") for slot in range(1, SLOTS) for item in ("similar", "absent"))
CHUNK = 20_000  # pairs whose sparse rows are held at a time


def compare(
    index: Index, left: Description, right: Description, left_rows: np.ndarray, right_rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Facts [P, len(FACTS)] float32 of pairs (left_rows[p], right_rows[p]) and validity [P] in [0, 1].

    Validity is 1 where no fact contradicts: no code against another code, no number against a number.
    """
    known, chunks = _Words(index.rarity), range(0, len(left_rows), CHUNK)
    facts = np.concatenate(
        [
            np.empty((0, len(FACTS)), np.float32),
            *(
                _compare_chunk(index, known, left, right, left_rows[s : s + CHUNK], right_rows[s : s + CHUNK])
                for s in chunks
            ),
        ]
    )
    conflicts = [facts[:, FACTS.index(name)] for name in ("code conflict", "number conflict")]
    return facts, np.prod([1 - np.clip(conflict, 0, 1) for conflict in conflicts], axis=0, dtype=np.float32)


def base_score(facts: np.ndarray) -> np.ndarray:
    """[.., FACTS] -> [..]: the mean of the text and title cosines, before anything is learned."""
    return facts[..., :4].mean(axis=-1)


def swap(facts: np.ndarray) -> np.ndarray:
    """The same facts seen from the other record: (anchor, other) becomes (other, anchor)."""
    return facts[..., _SWAPPED] * _SIGN


def view(
    record: np.ndarray,
    score: np.ndarray,
    reverse_record: np.ndarray,
    reverse_score: np.ndarray,
    reverse_best: np.ndarray,
    anchor: np.ndarray,
    own_repeats: np.ndarray,
    other_repeats: np.ndarray,
    direction: np.ndarray,
) -> np.ndarray:
    """What the catalogue adds to each candidate: [r, K, len(VIEW)] float32, in units of `score`.

    record, score [r, K]: the anchors' candidates (-1 empty or hidden) and a score of each pair.
    reverse_record, reverse_score [r, K, K']: the candidates' own lists, back towards the anchor's table.
    reverse_best [r, K, K']: 1 where the candidate is the best of that reverse record.
    anchor [r]: the record the anchor stands for, left out of the reverse lists.
    own_repeats [r], other_repeats [r, K]: nearest neighbour in the record's own table.
    direction [r]: 1 where the anchor's table comes before the candidates', else 0.
    """
    filled = record >= 0
    mine = np.where(filled, score, -1.0)
    rank = 1 + (mine[:, None, :] > mine[:, :, None]).sum(-1)
    margin = mine - _best_other(mine)
    rivals = np.where((reverse_record >= 0) & (reverse_record != anchor[:, None, None]), reverse_score, -1.0)
    reverse_rank = 1 + (rivals > mine[..., None]).sum(-1)
    strongest = np.maximum(rivals.max(-1), 0.0)
    claim = np.where(reverse_best > 0, rivals, 0.0).max(-1)
    items = [
        mine,
        1.0 / rank,
        margin,
        _softmax(mine),
        1.0 / reverse_rank,
        mine - strongest,
        _softmax(np.concatenate([mine[..., None], rivals], -1))[..., 0],
        np.clip(claim - mine, -1, 1),
        np.broadcast_to(own_repeats[:, None], mine.shape) - mine,
        other_repeats - mine,
        ((rank == 1) & (reverse_rank == 1)).astype(np.float32),
        np.broadcast_to(direction[:, None], mine.shape),
    ]
    return np.where(filled[..., None], np.stack(items, -1), 0.0).astype(np.float32)


def _softmax(scores: np.ndarray, temperature: float = 0.05) -> np.ndarray:
    value = np.exp((scores - scores.max(-1, keepdims=True)) / temperature)
    return value / value.sum(-1, keepdims=True)


def _best_other(scores: np.ndarray) -> np.ndarray:
    """[r, K] -> [r, K]: the largest score among the other candidates of the row, at least 0."""
    order = np.sort(scores, axis=-1)
    first, second = order[:, -1:], order[:, -2:-1] if scores.shape[-1] > 1 else np.zeros_like(order[:, -1:])
    alone = (scores == first).sum(-1, keepdims=True) == 1
    return np.maximum(np.where((scores == first) & alone, second, first), 0.0)


def _compare_chunk(
    index: Index,
    known: _Words,
    left: Description,
    right: Description,
    left_rows: np.ndarray,
    right_rows: np.ndarray,
) -> np.ndarray:
    def products(a: sp.csr_matrix, b: sp.csr_matrix) -> sp.csr_matrix:
        return a[left_rows].multiply(b[right_rows]).tocsr()

    def total(terms: sp.csr_matrix) -> np.ndarray:
        return np.asarray(terms.sum(axis=1), np.float32).ravel()

    words = len(index.vectors.words.vocabulary_)
    both = [products(a, b) for a, b in ((left.text, right.text), (left.title, right.title))]
    cosines = [2 * total(terms[:, part]) for terms in both for part in (slice(None, words), slice(words, None))]
    pairs = [_pair(left, right, i, j, known) for i, j in zip(left_rows.tolist(), right_rows.tolist(), strict=True)]
    return np.concatenate(
        [
            np.stack(cosines, axis=1),
            np.array(pairs, np.float32).reshape(len(left_rows), -1),
            _amounts(left.amounts[left_rows], right.amounts[right_rows]),
            _lengths(left, right, left_rows, right_rows),
            _attributes(
                [total(products(a, b)) for a, b in zip(left.slots, right.slots, strict=True)],
                left,
                right,
                left_rows,
                right_rows,
            ),
        ],
        axis=1,
        dtype=np.float32,
    )


def _pair(left: Description, right: Description, i: int, j: int, known: _Words) -> tuple[float, ...]:
    """The facts from "title within other" to "number conflict" of one pair."""
    within, rarest, share, first = _missing(known, left.words[i], right.tokens[j], right.grams[j])
    other_within, other_rarest, other_share, other_first = _missing(
        known, right.words[j], left.tokens[i], left.grams[i]
    )
    found, left_over = _code_matches(known, left.codes[i], right.joined[j], right.starts[j])
    other_found, other_left_over = _code_matches(known, right.codes[j], left.joined[i], left.starts[i])
    code = max(found, other_found)
    conflict = 0.0
    if code == 0 and left.codes[i] and right.codes[j]:
        conflict = 0.5 + 0.5 * max(_alike(a, b) for a in left.codes[i] for b in right.codes[j])
    a, b = left.numbers[i], right.numbers[j]
    shared, mine, other = len(a & b), len(a - b), len(b - a)
    number_conflict = (1.0 if shared == 0 else 0.5) if mine and other else 0.0
    return (
        *(within, other_within, rarest, other_rarest, share, other_share, first, other_first),
        *(code, conflict, left_over, other_left_over),
        *(math.log1p(shared), math.log1p(mine), math.log1p(other), number_conflict),
    )


class _Words(dict[str, tuple[float, frozenset[str]]]):
    """The rarity and the grams of each word, looked up once."""

    def __init__(self, rarity: Mapping[str, float]) -> None:
        super().__init__()
        self._rarity = rarity

    def __missing__(self, word: str) -> tuple[float, frozenset[str]]:
        self[word] = self._rarity.get(word, 1.0), grams_of(word)
        return self[word]


def _missing(
    known: _Words, words: Sequence[str], tokens: frozenset[str], grams: frozenset[str]
) -> tuple[float, float, float, float]:
    """Of `words`: weighted share said exactly, rarest not said at all, weighted share not said, first one said.

    A word counts as partly said where most of its 3-grams are in the other record (typos, joined words).
    """
    total, exact, missing, rarest, first = 1e-6, 0.0, 0.0, 0.0, 0.0
    for place, word in enumerate(words):
        rarity, own = known[word]
        total += rarity
        if word in tokens:
            exact += rarity
            first = 1.0 if place == 0 else first
            continue
        said = len(own & grams) / len(own) if own else 0.0
        lost = rarity * min(1.0, (1 - said) / 0.6)
        missing += lost
        rarest = max(rarest, lost)
    return exact / total, rarest, missing / total, first


def _code_matches(known: _Words, codes: Sequence[str], joined: str, starts: frozenset[int]) -> tuple[float, float]:
    """The best match of a code inside the other text (1 at word boundaries), and the rarest code without one."""
    best, left_over = 0.0, 0.0
    for code in codes:
        level, place = 0.0, joined.find(code)
        while place >= 0:
            end = place + len(code)
            whole = (place in starts) + (end in starts or end == len(joined))
            parted = _parted(joined, place) and _parted(joined, end)
            level = max(level, 1.0 if whole == 2 else 0.7 if parted or whole else 0.0)
            place = joined.find(code, place + 1)
        rarity, _ = known[code]
        best = max(best, level * rarity)
        if level == 0:
            left_over = max(left_over, rarity)
    return best, left_over


def _parted(text: str, place: int) -> bool:
    """Whether digits meet letters (or the text ends) at `place`."""
    return place in (0, len(text)) or text[place - 1].isdigit() != text[place].isdigit()


def _alike(a: str, b: str) -> float:
    """Share of the longer code that is a common start: substitutes differ in the tail."""
    common = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        common += 1
    return common / max(len(a), len(b))


def _amounts(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[P, fields] amounts -> [P, 3]: abs log ratio (at most 3), equality, missing; means over the fields."""
    if left.shape[1] == 0:
        return np.tile(np.array([0, 0, 1], np.float32), (len(left), 1))
    known = (left > 0) & (right > 0) & np.isfinite(left) & np.isfinite(right)  # one may be beyond float32
    ratio = np.abs(np.log(np.where(known, left, 1)) - np.log(np.where(known, right, 1)))
    count = np.maximum(known.sum(1), 1)
    equal = (known & (ratio < 1e-4)).sum(1) / count
    return np.stack([np.minimum(ratio, 3).sum(1) / count, equal, 1 - known.mean(1)], axis=1).astype(np.float32)


def _lengths(left: Description, right: Description, left_rows: np.ndarray, right_rows: np.ndarray) -> np.ndarray:
    mine = np.array([len(words) for words in left.words])[left_rows] + 1
    other = np.array([len(words) for words in right.words])[right_rows] + 1
    return np.log(mine / other)[:, None].astype(np.float32)


def _attributes(
    cosines: Sequence[np.ndarray], left: Description, right: Description, left_rows: np.ndarray, right_rows: np.ndarray
) -> np.ndarray:
    """[P, 3 + 3 SLOTS]: least, mean and missing share over the text fields, then the slots' own items."""
    count = len(left_rows)
    if not cosines:
        return np.tile(np.array([0, 0, 1] + [0, 0, 1] * SLOTS, np.float32), (count, 1))
    similar = np.stack(cosines, axis=1)
    values = [(a[left_rows], b[right_rows]) for a, b in zip(left.values, right.values, strict=True)]
    present = np.stack([(a != "") & (b != "") for a, b in values], axis=1)
    equal = np.stack([a == b for a, b in values], axis=1) & present
    least = np.where(present, similar, 1.0).min(axis=1)
    mean = (similar * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
    items = np.zeros((count, SLOTS, 3), np.float32)
    items[..., 2] = 1
    used = min(SLOTS, similar.shape[1])
    for slot, part in enumerate((similar * present, equal, ~present)):
        items[:, :used, slot] = part[:, :used]
    return np.concatenate([np.stack([least, mean, 1 - present.mean(1)], 1), items.reshape(count, -1)], axis=1)


_SIDES = {"title within other": "other title within", "rarest missing": "other rarest missing"} | {
    name: f"other {name}" for name in ("missing share", "first word", "code left over", "numbers left over")
}
_TURNED = _SIDES | {other: name for name, other in _SIDES.items()}
_SWAPPED = np.array([FACTS.index(_TURNED.get(name, name)) for name in FACTS])
_SIGN = np.array([-1.0 if name == "length ratio" else 1.0 for name in FACTS], np.float32)
