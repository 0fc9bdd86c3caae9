"""What is stated of pairs once they have been judged: rows of relations.csv, and estimates without a label.

Which pairs are the same was found by the judge and the actor. Where more is sought, what else they are is told by what
the tables say of kinds and sizes (`relations`), for pairs that were compared and for pairs that kinds bring together.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from aco_jax import relations
from aco_jax.data import kinds as sorts
from aco_jax.data.records import CLUSTER_COLUMNS, Dataset, Pairs
from aco_jax.ops import bootstrap
from aco_jax.types import UNRELATED

Row = tuple[str, str, str, str, str, float]  # ltable, ltable_id, rtable, rtable_id, relation, probability
COLUMNS = ("ltable", "ltable_id", "rtable", "rtable_id", "relation", "probability")
UNLIKELY = 1e-4  # probability of a pair that nobody retrieved
PARTNERS = 32  # of one kind and table that a record is looked at with, where it may have many partners


@dataclass(frozen=True)
class Judged:
    """All pairs that were compared, and what is thought of them."""

    pair: np.ndarray  # [P, 2] int32 records
    posterior: np.ndarray  # [P] float32
    stated: np.ndarray  # [P] bool, by the actor from either end
    rejected: np.ndarray  # [P] bool, by the actor from either end, and stated from neither
    related: np.ndarray  # [P] bool
    committee: np.ndarray  # [C, P] float32: the posterior by parts of the judge, each of which could judge alone


@dataclass(frozen=True)
class Several:
    """Pairs and what is thought of each of the relations sought, where more is sought than which are the same."""

    pair: np.ndarray  # [P, 2] int32 records
    probability: np.ndarray  # [P, Y + 1] float64, "unrelated" first; rows sum to 1
    relation: np.ndarray  # [P] int, the one stated, UNRELATED where none is
    missed: np.ndarray  # [Y + 1] float64, pairs of each relation that are expected beside these P


def conclude(dataset: Dataset, found: Judged) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """Rows of the related pairs, likeliest first, and what is expected of them.

    The expectations are of the catalogue's same pairs, and of each relation by its name.
    """
    if not relations.roles(dataset.relations).beyond:
        only = estimate(found.posterior, found.related, found.pair[:, 0], found.committee)
        return rows_of(dataset, found, None), {"catalogue": only, dataset.relations[0].name: only}
    several = judge_several(dataset, found)
    each = {
        relation.name: estimate(
            several.probability[:, number],
            several.relation == number,
            several.pair[:, 0],
            missed=float(several.missed[number]),
        )
        for number, relation in enumerate(dataset.relations, start=1)
    }
    expected = {"catalogue": each[relations.identity(dataset.relations).name]} | each
    return _rows_of_several(dataset, several, everything=False), expected


def rows_of(dataset: Dataset, found: Judged, pairs: Pairs | None) -> list[Row]:
    """Rows of the related pairs, likeliest first; or of the pairs asked for, in their order."""
    if relations.roles(dataset.relations).beyond:
        return _rows_of_several(dataset, judge_several(dataset, found, pairs), everything=pairs is not None)
    name = dataset.relations[0].name
    if pairs is None:
        chosen = np.flatnonzero(found.related)
        chosen = chosen[np.argsort(-found.posterior[chosen], kind="stable")]
        return [_row(dataset, found.pair[i, 0], found.pair[i, 1], name, float(found.posterior[i])) for i in chosen]
    rows = []
    for left, right, i in zip(pairs.left.tolist(), pairs.right.tolist(), _places(found, pairs).tolist(), strict=True):
        p = UNLIKELY if i < 0 else float(found.posterior[i])
        is_related = i >= 0 and bool(found.related[i])
        rows.append(_row(dataset, left, right, name if is_related else "unrelated", p if is_related else 1 - p))
    return rows


def judge_several(dataset: Dataset, found: Judged, pairs: Pairs | None = None) -> Several:
    """All relations of the pairs asked for; by default of those compared and those that kind and size bring together.

    Which pairs are the same was found by the judge and the actor; what else they are is told by what the tables say of
    kinds and sizes.
    """
    sought = relations.roles(dataset.relations)
    posterior = found.posterior if sought.same else np.zeros(len(found.pair))
    sure = found.pair[found.related] if sought.same else found.pair[:0]
    kinds = sorts.fit(dataset, sure)
    if pairs is None:
        both = np.concatenate([found.pair, sorts.partners(dataset, kinds, PARTNERS)])
        pair = np.unique(np.sort(both, axis=1), axis=0)
        pairs = Pairs(pair[:, 0], pair[:, 1], None)
    pair, place = np.stack([pairs.left, pairs.right], axis=1), _places(found, pairs)
    unseen = UNLIKELY if sought.same else 0.0
    same = np.where(place >= 0, np.append(posterior, 0.0)[place], unseen)
    wrong = relations.errors(kinds, found.pair, posterior)
    probability = relations.probabilities(kinds, wrong, sought, pair, same)
    open_to = probability.copy()
    if sought.same:
        open_to[(place >= 0) & ~np.append(found.related, False)[place], sought.same] = 0
    missed = relations.missed(kinds, wrong, sought, pair, dataset.table_of) * (1 - unseen)
    return Several(pair, probability, open_to.argmax(axis=1), missed)


def limited(
    dataset: Dataset, pair: np.ndarray, posterior: np.ndarray, related: np.ndarray, most: int | None
) -> np.ndarray:
    """[P] bool: of the `related` pairs [P, 2], the likeliest first, those whose records have at most `most` partners.

    That is in each other table; where `most` is None all stay.
    """
    if most is None:
        return related
    kept, have = np.zeros(len(related), bool), Counter[tuple[int, int]]()
    chosen = np.flatnonzero(related)
    for i in chosen[np.argsort(-posterior[chosen], kind="stable")].tolist():
        left, right = pair[i].tolist()
        sides = (left, int(dataset.table_of[right])), (right, int(dataset.table_of[left]))
        if max(have[side] for side in sides) < most:
            have.update(sides)
            kept[i] = True
    return kept


def estimate(
    posterior: np.ndarray,
    related: np.ndarray,
    record: np.ndarray,
    committee: np.ndarray | None = None,
    missed: float = 0.0,
) -> dict[str, float]:
    """Precision, recall and F1 that the posteriors [P] expect of the related pairs: for people, never a reward.

    `f1_low` and `f1_high` are the ends of a 90% interval (`ops.bootstrap`) over records [P] and the committee [C, P].
    `missed` related pairs are expected beside those P.
    """
    sure, all_ = float(posterior[related].sum()), float(posterior.sum()) + missed
    count, judges = int(related.sum()), posterior[None]
    low, high = bootstrap.f1_interval(
        judges if committee is None else np.concatenate([judges, committee]), related, record, missed=missed
    )
    expected = 2 * sure / (count + all_) if count + all_ else 0.0
    return {
        "precision": sure / count if count else 0.0,
        "recall": sure / all_ if all_ else 0.0,
        "f1": expected,
        # Of few pairs the expected F1 may be one that hardly a draw has.
        "f1_low": min(low, expected),
        "f1_high": max(high, expected),
    }


def write_relations(path: Path, rows: Sequence[Row]) -> None:
    """relations.csv: one row a pair."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((*row[:-1], f"{row[-1]:.4f}") for row in rows)


def clusters(dataset: Dataset, rows: Sequence[Row]) -> list[np.ndarray]:
    """The records [n] that stated identities join, directly or over others, for every n >= 2; the largest first."""
    pairs = _identities(dataset, rows)
    graph = sp.coo_matrix((np.ones(len(pairs)), tuple(pairs.T)), (dataset.size, dataset.size))
    _, label = connected_components(graph, directed=False)
    found = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    return sorted((records for records in found if len(records) > 1), key=lambda records: (-len(records), records[0]))


def count_clusters(dataset: Dataset, rows: Sequence[Row], found: Sequence[np.ndarray]) -> dict[str, int]:
    """How many `clusters` were `found`, how large the largest is, and how many lack a pair of different tables."""
    label = np.full(dataset.size, -1)
    for number, records in enumerate(found):
        label[records] = number
    pairs = _identities(dataset, rows)
    stated = np.bincount(label[pairs[:, 0]], minlength=len(found)).tolist()
    lacking = 0
    for records, there in zip(found, stated, strict=True):
        tables = np.bincount(dataset.table_of[records])
        lacking += int(there < (tables.sum() ** 2 - np.sum(tables**2)) // 2)
    return {
        "clusters": len(found),
        "records in the largest cluster": max(map(len, found), default=0),
        "clusters that lack a pair": int(lacking),
    }


def write_clusters(path: Path, dataset: Dataset, found: Sequence[np.ndarray]) -> None:
    """clusters.csv: a row a record that has a partner, with the number of its cluster."""
    with Path(path).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CLUSTER_COLUMNS)
        writer.writerows(
            (number, *dataset.key(record)) for number, records in enumerate(found) for record in records.tolist()
        )


def _rows_of_several(dataset: Dataset, several: Several, everything: bool) -> list[Row]:
    """A row of each pair in its order, or of the related ones only, likeliest first."""
    names = ["unrelated", *(relation.name for relation in dataset.relations)]
    p = np.take_along_axis(several.probability, several.relation[:, None], axis=1)[:, 0]
    chosen = np.arange(len(p)) if everything else np.flatnonzero(several.relation != UNRELATED)
    if not everything:
        chosen = chosen[np.argsort(-p[chosen], kind="stable")]
    rows = zip(several.pair[chosen].tolist(), several.relation[chosen].tolist(), p[chosen].tolist(), strict=True)
    return [_row(dataset, left, right, names[number], sure) for (left, right), number, sure in rows]


def _identities(dataset: Dataset, rows: Sequence[Row]) -> np.ndarray:
    """[n, 2] the records of each row that states that both are the same."""
    sought = relations.roles(dataset.relations).same
    name = dataset.relations[sought - 1].name if sought else None
    pairs = [(dataset.index[row[0], row[1]], dataset.index[row[2], row[3]]) for row in rows if row[4] == name]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _places(found: Judged, pairs: Pairs) -> np.ndarray:
    """[n] where the pairs asked for stand among those compared, -1 where they were not."""
    place = {(int(left), int(right)): i for i, (left, right) in enumerate(found.pair)}
    both = zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)
    return np.array([place.get((min(pair), max(pair)), -1) for pair in both], np.int64)


def _row(dataset: Dataset, left: int | np.integer, right: int | np.integer, relation: str, probability: float) -> Row:
    return (*dataset.key(int(left)), *dataset.key(int(right)), relation, probability)
