"""All lists of candidates and what can be seen of them: evidence of pairs, and the catalogue around.

A list is about an anchor and a table that is searched. Nothing here is believed or learned.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from aco_jax.data import descriptions, evidence
from aco_jax.data.records import Dataset, InputError, Table
from aco_jax.data.retrieval import Lists, nearest
from aco_jax.data.retrieval import candidates as candidate_lists
from aco_jax.types import Candidates

CLIP = 6.0  # standardised evidence beyond is as good as this
LEAST_STD = np.float32(1e-3)  # that of an item of evidence that does not vary
SAMPLE = 8192  # records of a table that are compared with one another


class Standard(NamedTuple):
    """What evidence is standardised by, [F + view] float32 each."""

    mean: np.ndarray
    std: np.ndarray


@dataclass(frozen=True)
class Problem:
    """All lists with their evidence. R lists, K candidates, P pairs of records, each pair once.

    anchor [R], table [R], record [R, K] (-1 empty), pair [P, 2] (lower record first), place [R, K] (number of
    the pair, -1), reverse [R, K] (list of the candidate back to the anchor's table), facts [P, F], validity
    [P], score [R, K], direction [R] (1: the anchor's table is the earlier), repeats [N], kind [R] (number of
    the ordered pair of tables), home [R] (the anchor's table), mean and std [F + view] of the evidence, text and
    title [N, V] (TF-IDF, as they are described), size N.
    """

    anchor: np.ndarray
    table: np.ndarray
    record: np.ndarray
    pair: np.ndarray
    place: np.ndarray
    reverse: np.ndarray
    facts: np.ndarray
    validity: np.ndarray
    score: np.ndarray
    direction: np.ndarray
    repeats: np.ndarray
    kind: np.ndarray
    home: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    text: sp.csr_matrix
    title: sp.csr_matrix
    size: int


def prepare(dataset: Dataset, index: descriptions.Index, lists: Lists) -> Problem:
    """Compares every candidate pair once, and finds each pair's list in the other direction.

    Raises InputError where there is no candidate at all.
    """
    rows, slots = np.nonzero(lists.record >= 0)
    if not len(rows):
        names = ", ".join(table.name for table in dataset.tables)
        raise InputError(
            f"tables {names}: nothing in common, expected a word that two records of different tables share"
        )
    anchor, other = lists.anchor[rows].astype(np.int64), lists.record[rows, slots].astype(np.int64)
    code, number = np.unique(np.minimum(anchor, other) * dataset.size + np.maximum(anchor, other), return_inverse=True)
    pair = np.stack([code // dataset.size, code % dataset.size], axis=1).astype(np.int32)
    facts, validity = evidence.compare(index, index.records, index.records, pair[:, 0], pair[:, 1])
    place = np.full(lists.record.shape, -1, np.int32)
    place[rows, slots] = number
    tables = len(dataset.tables)
    row_of = np.full((dataset.size, tables), -1, np.int32)
    row_of[lists.anchor, lists.table] = np.arange(len(lists.anchor))
    own = dataset.table_of[lists.anchor]
    blank = Problem(
        anchor=lists.anchor,
        table=lists.table,
        record=lists.record,
        pair=pair,
        place=place,
        reverse=row_of[np.maximum(lists.record, 0), own[:, None]],
        facts=facts,
        validity=validity,
        score=np.where(place >= 0, evidence.base_score(facts)[place], -1.0).astype(np.float32),
        direction=(own < lists.table).astype(np.float32),
        repeats=index.repeats,
        kind=np.unique(own * tables + lists.table, return_inverse=True)[1].astype(np.int32),
        home=own.astype(np.int32),
        mean=np.zeros(len(evidence.NAMES), np.float32),
        std=np.ones(len(evidence.NAMES), np.float32),
        text=index.records.text,
        title=index.records.title,
        size=dataset.size,
    )
    seen = observe(blank, np.arange(len(lists.anchor)), raw=True)[lists.record >= 0]
    mean, std = seen.mean(axis=0), seen.std(axis=0) + LEAST_STD
    return Problem(**{**blank.__dict__, "mean": mean.astype(np.float32), "std": std.astype(np.float32)})


def keep_standard(path: Path, problem: Problem) -> None:
    """Writes what evidence is standardised by: of each item its mean and deviation, as JSON."""
    both = np.stack([problem.mean, problem.std], axis=1).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(zip(evidence.NAMES, both, strict=True)), indent=1) + "\n", encoding="utf-8")


def read_standard(path: Path) -> Standard:
    """What `keep_standard` wrote. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected what the run's evidence was standardised by")
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        mean, std = np.array([kept[name] for name in evidence.NAMES], np.float32).T
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: {error}, expected mean and deviation of each item of evidence") from error
    return Standard(mean, std)


def standardised(problem: Problem, by: Standard) -> Problem:
    """The problem with its evidence standardised as that of the tables that a judge was taught on.

    An item that never varied there taught the judge nothing, and says nothing here.
    """
    unknown = (by.std <= LEAST_STD) & (problem.std > by.std)
    return dataclasses.replace(problem, mean=by.mean, std=np.where(unknown, np.float32(np.inf), by.std))


def halves(dataset: Dataset, index: descriptions.Index, problem: Problem, seed: int) -> list[Problem]:
    """Each table against itself: it is parted at random in two, and every record looks among those of the other half.

    Evidence is standardised as that of `problem`. Of a table of more than SAMPLE records that many are looked at; one
    of fewer than four, or whose records have nothing in common, is left out.
    """
    found = []
    for first, end in pairwise(dataset.offsets.tolist()):
        order = np.random.default_rng([seed, first]).permutation(end - first)[:SAMPLE]
        parts = [first + np.sort(order[: len(order) // 2]), first + np.sort(order[len(order) // 2 :])]
        if end - first >= 4 and (half := _of_one_table(dataset, index, problem, parts)):
            found.append(half)
    return found


def within(dataset: Dataset, index: descriptions.Index, problem: Problem, records: np.ndarray) -> Problem | None:
    """Records [n] of one table against one another, each as n and as one of the other n; None where nothing is alike.

    Evidence is standardised as that of `problem`.
    """
    return _of_one_table(dataset, index, problem, [records, records]) if len(records) > 1 else None


def observe(problem: Problem, rows: np.ndarray, hidden: np.ndarray | None = None, *, raw: bool = False) -> np.ndarray:
    """Evidence [r, K, F] of lists `rows`, standardised; hidden [r, K] bool slots are as if not there."""
    record, place = problem.record[rows], problem.place[rows]
    if hidden is not None:
        record = np.where(hidden, -1, record)
    facts = problem.facts[np.maximum(place, 0)]
    earlier = (problem.direction[rows] > 0)[:, None, None]
    facts = np.where(earlier, facts, evidence.swap(facts))
    view = _view(problem, problem.reverse[rows], record, problem.score[rows], problem.anchor[rows], rows)
    return _standardise(problem, facts, view, record, raw)


def everything(problem: Problem) -> Candidates:
    """Candidates [R, 1, K] of all lists, nothing hidden: what the judge answers each round."""
    record = problem.record
    validity = np.where(record >= 0, problem.validity[np.maximum(problem.place, 0)], 0.0)
    return candidates(record, observe(problem, np.arange(len(record))), validity)


def observe_new(
    problem: Problem,
    index: descriptions.Index,
    described: descriptions.Description,
    record: np.ndarray,
    rows: np.ndarray,
    standing: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evidence [r, K, F], validity and plain score [r, K] of any candidates `record` [r, K], -1 where empty.

    Args:
        described: r records, each in the place of the anchor of list rows[i]; they may be new.
        rows: [r] lists.
        standing: [r] bool, described i is the anchor itself, whose compared pairs need no second look.
    """
    left, slots = np.nonzero(record >= 0)
    facts = np.zeros((*record.shape, len(evidence.FACTS)), np.float32)
    validity = np.zeros(record.shape, np.float32)
    place = _place(problem, problem.anchor[rows][left], record[left, slots])
    known = standing[left] & (place >= 0)
    earlier = (problem.direction[rows] > 0)[left[known], None]
    held = problem.facts[place[known]]
    facts[left[known], slots[known]] = np.where(earlier, held, evidence.swap(held))
    validity[left[known], slots[known]] = problem.validity[place[known]]
    left, slots = left[~known], slots[~known]
    compared = evidence.compare(index, described, index.records, left, record[left, slots])
    facts[left, slots], validity[left, slots] = compared
    row_of = np.zeros((problem.size, int(problem.table.max()) + 1), np.int64)
    row_of[problem.anchor, problem.table] = np.arange(len(problem.anchor))
    reverse = row_of[np.maximum(record, 0), problem.home[rows][:, None]]
    score = np.where(record >= 0, evidence.base_score(facts), -1.0)
    view = _view(problem, reverse, record, score, problem.anchor[rows], rows)
    return _standardise(problem, facts, view, record, False), validity, score


def neighbours(
    dataset: Dataset, index: descriptions.Index, described: descriptions.Description, tables: np.ndarray, k: int
) -> np.ndarray:
    """The k records of table tables[i] whose text is most like record i's, [r, k], -1 where there are fewer."""
    record = np.full((len(described), k), -1, np.int32)
    for table in np.unique(tables):
        mine = np.flatnonzero(tables == table)
        start, end = int(dataset.offsets[table]), int(dataset.offsets[table + 1])
        found = nearest(described.text[mine], index.records.text[start:end], k)[0]
        record[mine] = np.where(found >= 0, found + start, -1)
    return record


def likeness(problem: Problem, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """[n]: the score of any two records, which pairs of one table have too; see `evidence.base_score`."""
    found = np.zeros(len(left))
    for start in range(0, len(left), evidence.CHUNK):
        part = slice(start, start + evidence.CHUNK)
        for words in (problem.text, problem.title):
            found[part] += np.asarray(words[left[part]].multiply(words[right[part]]).sum(axis=1)).ravel() / 2
    return found


def candidates(record: np.ndarray, seen: np.ndarray, validity: np.ndarray) -> Candidates:
    blank = np.zeros(record.shape, np.float32)[:, None]
    return Candidates(
        record=record[:, None].astype(np.int32),
        evidence=seen[:, None],
        validity=validity[:, None].astype(np.float32),
        reading=blank,
        tokens=blank.astype(np.int32),
    )


def _of_one_table(
    dataset: Dataset, index: descriptions.Index, problem: Problem, parts: Sequence[np.ndarray]
) -> Problem | None:
    """Two sets of records of one table against each other, no record against itself; None without any candidate."""
    rows = np.concatenate(parts)
    number = int(dataset.table_of[rows[0]])
    table, start = dataset.tables[number], int(dataset.offsets[number])
    parted = Dataset(
        tuple(
            Table(name, tuple(table.ids[i] for i in part.tolist()), table.columns, table.cells[part])
            for name, part in zip(("one part", "the other part"), (part - start for part in parts), strict=True)
        ),
        dataset.relations,
    )
    records = index.records.take(rows)
    own = dataclasses.replace(index, records=records, repeats=descriptions.nearest_own(records, parted.offsets))
    lists = candidate_lists(parted, [records.text, records.title], k=problem.record.shape[1])
    others = np.where(rows[lists.record] == rows[lists.anchor][:, None], -1, lists.record)
    order = np.argsort(others < 0, axis=1, kind="stable")
    lists = dataclasses.replace(lists, record=np.take_along_axis(others, order, axis=1))
    if not np.any(lists.record >= 0):
        return None
    return dataclasses.replace(prepare(parted, own, lists), mean=problem.mean, std=problem.std)


def _place(problem: Problem, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The numbers of pairs of records [n] among the compared pairs, -1 where they are not."""
    code = problem.pair[:, 0].astype(np.int64) * problem.size + problem.pair[:, 1]
    wanted = np.minimum(left, right).astype(np.int64) * problem.size + np.maximum(left, right)
    place = np.minimum(np.searchsorted(code, wanted), len(code) - 1)
    return np.where(code[place] == wanted, place, -1)


def _view(
    problem: Problem, reverse: np.ndarray, record: np.ndarray, score: np.ndarray, anchor: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    best = problem.record[np.arange(len(problem.record)), problem.score.argmax(axis=1)]
    rivals = problem.record[reverse]
    # A rival's own list towards the candidate's table is the reverse of the reverse.
    reverse_best = best[problem.reverse[reverse]] == record[..., None]
    return evidence.view(
        record,
        score,
        rivals,
        problem.score[reverse],
        reverse_best & (rivals >= 0),
        anchor,
        problem.repeats[anchor],
        problem.repeats[np.maximum(record, 0)],
        problem.direction[rows],
    )


def _standardise(problem: Problem, facts: np.ndarray, view: np.ndarray, record: np.ndarray, raw: bool) -> np.ndarray:
    value = np.concatenate([facts, view], axis=-1)
    if not raw:
        value = np.clip((value - problem.mean) / problem.std, -CLIP, CLIP)
    return np.where((record >= 0)[..., None], value, 0.0).astype(np.float32)
