"""What is stated of pairs, where more is sought than which are the same: what was judged is given."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from aco_jax import statements
from aco_jax.data import kinds, records
from aco_jax.data.records import Pairs, Relation

RELATIONS = (  # in the order of the alphabet, as a config file gives them
    Relation("complement", "One is made to be used with the other."),
    Relation("same", "One and the same thing."),
    Relation("substitute", "One can stand in for the other."),
)


def judged(dataset, same, related=None):
    """What a judge would have thought of the pairs `same`, (left, right) -> probability."""
    pair, p = np.array(list(same), np.int32).reshape(-1, 2), np.array(list(same.values()), np.float32)
    nobody = np.zeros(len(p), bool)
    related = p > 0.5 if related is None else np.array(related)
    return statements.Judged(pair, p, nobody, nobody, related, np.stack([p, p]))


@pytest.fixture(scope="module")
def dataset(kitchens):
    """Both kitchens' pans and lids, and all that is sought of them."""
    return records.Dataset(kitchens, RELATIONS)


def stated(rows):
    return {(row[1], row[3]): row[4] for row in rows}


def test_every_pair_asked_for_has_a_relation_or_none(dataset):
    found = judged(dataset, {(0, 12): 0.9, (1, 13): 0.8, (0, 13): 0.3})
    left, right = np.array([0, 0, 13, 0, 0]), np.array([12, 16, 0, 14, 15])
    rows = statements.rows_of(dataset, found, Pairs(left, right, None))
    assert [row[4] for row in rows] == ["same", "substitute", "unrelated", "complement", "unrelated"]
    assert [row[:4] for row in rows][2] == ("b", "1", "a", "0")  # as it was asked
    assert rows[0][5] == pytest.approx(0.9)
    assert all(0.5 < row[5] <= 1 for row in rows)


def test_what_is_stated_of_all_tables(dataset):
    """Three of a kind and size in each table: all nine pairs, and the nine with what goes with them, at once."""
    same = {(n, 12 + n): 0.95 for n in range(12)}
    rows = statements.rows_of(dataset, judged(dataset, same), None)
    found = stated(rows)
    kind = [(n % 4 // 2, n % 2) for n in range(12)]  # kind and size of each record

    def truth(a, b):
        if a == b:
            return "same"
        if kind[a][1] != kind[b][1]:
            return None
        return "substitute" if kind[a] == kind[b] else "complement"

    expected = {(str(a), str(b)): truth(a, b) for a in range(12) for b in range(12) if truth(a, b)}
    assert found == expected
    assert [row[5] for row in rows] == sorted((row[5] for row in rows), reverse=True)


def test_what_the_actor_turned_down_is_not_the_same(dataset):
    found = judged(dataset, {(0, 12): 0.7, (1, 13): 0.9}, related=[False, True])
    several = statements.judge_several(dataset, found)
    place = {tuple(pair): i for i, pair in enumerate(several.pair.tolist())}
    relation = several.relation[[place[0, 12], place[1, 13]]]
    assert relation[0] != 2
    assert relation[1] == 2
    np.testing.assert_allclose(several.probability.sum(axis=1), 1, atol=1e-9)


def test_the_relations_are_estimated_by_their_names(dataset):
    found = judged(dataset, {(n, 12 + n): 0.9 for n in range(12)})
    rows, estimates = statements.conclude(dataset, found)
    assert rows == statements.rows_of(dataset, found, None)
    assert set(estimates) == {"catalogue", "same", "substitute", "complement"}
    assert estimates["catalogue"] == estimates["same"]
    assert estimates["same"]["precision"] == pytest.approx(0.9)
    one = records.Dataset(dataset.tables)
    only = statements.estimate(found.posterior, found.related, found.pair[:, 0], found.committee)
    assert statements.conclude(one, found) == (statements.rows_of(one, found, None), {"catalogue": only, "same": only})


def test_kinds_are_fitted_once(dataset, monkeypatch):
    """They take the most time of all that is done here."""
    fit, calls = kinds.fit, []
    monkeypatch.setattr(kinds, "fit", lambda *given: calls.append(1) or fit(*given))
    statements.conclude(dataset, judged(dataset, {(n, 12 + n): 0.9 for n in range(12)}))
    assert len(calls) == 1


def test_where_the_same_is_not_sought_nothing_is_stated_to_be_it(dataset):
    fits = records.Dataset(dataset.tables, (Relation("compatible", "One fits the other."),))
    pairs = Pairs(np.array([0, 0, 0]), np.array([12, 14, 15]), None)
    rows = statements.rows_of(fits, judged(fits, {(0, 12): 0.99}), pairs)
    assert [row[4] for row in rows] == ["unrelated", "compatible", "unrelated"]


def test_clusters_join_what_is_stated_to_be_the_same(tmp_path):
    """a0 = b0 = c0 whole; a1 = b1 = c1, but a1 = c1 is not stated; a2 has two partners in b, which are no pair."""
    tables = tuple(
        records.Table(name, tuple("01234"), ("name",), np.array([[f"thing {i}"] for i in range(5)], object))
        for name in "abc"
    )
    dataset = records.Dataset(tables, RELATIONS)
    stated = ["a0b0", "b0c0", "a0c0", "a1b1", "b1c1", "a2b2", "a2b3"]
    rows = [(p[0], p[1], p[2], p[3], "same", 0.9) for p in stated] + [("a", "4", "b", "4", "substitute", 0.9)]
    found = statements.clusters(dataset, rows)
    names = [{"".join(dataset.key(int(record))) for record in each} for each in found]
    assert names == [{"a0", "b0", "c0"}, {"a1", "b1", "c1"}, {"a2", "b2", "b3"}]
    assert statements.count_clusters(dataset, rows, found) == {
        "clusters": 3,
        "records in the largest cluster": 3,
        "clusters that lack a pair": 1,
    }
    statements.write_clusters(tmp_path / "clusters.csv", dataset, found)
    lines = (tmp_path / "clusters.csv").read_text().splitlines()
    assert lines[0] == "cluster,table,id"
    assert sorted(lines[1:4]) == ["0,a,0", "0,b,0", "0,c,0"]
    assert len(lines) == 10
    assert statements.clusters(dataset, []) == []
    assert statements.count_clusters(dataset, [], [])["clusters"] == 0


def test_of_related_pairs_the_likeliest_stay_within_the_limit_of_each_other_table():
    """Records 0 and 1 of the first table, 2 to 4 of the second, 5 of a third."""
    names = {"a": "01", "b": "234", "c": "5"}
    frames = {name: pd.DataFrame({"id": list(ids), "t": ["x"] * len(ids)}) for name, ids in names.items()}
    dataset = records.from_frames(frames)
    pair = np.array([[0, 2], [0, 3], [1, 3], [0, 5], [1, 2], [1, 4]])
    p, related = np.array([0.9, 0.8, 0.7, 0.6, 0.99, 0.4]), np.array([True] * 5 + [False])

    def kept(most):
        found = statements.limited(dataset, pair, p, related, most)
        return {tuple(each) for each in pair[found].tolist()}

    assert kept(1) == {(1, 2), (0, 3), (0, 5)}  # 2 is taken by 1, and 3 by 0; another table has its own limit
    assert kept(2) == kept(None) == {(0, 2), (0, 3), (1, 3), (0, 5), (1, 2)}


def test_what_was_not_looked_at_is_missed(dataset, monkeypatch):
    """With one partner of each kind and table a record, fewer pairs are stated, and no more are expected in all."""
    found = judged(dataset, {(n, 12 + n): 0.95 for n in range(12)})
    whole = statements.conclude(dataset, found)[1]
    assert whole["substitute"]["recall"] > 0.95
    monkeypatch.setattr(statements, "PARTNERS", 1)
    rows, part = statements.conclude(dataset, found)
    several = statements.judge_several(dataset, found)
    for number, name in ((1, "complement"), (3, "substitute")):
        stated = sum(row[4] == name for row in rows)
        assert several.missed[number] > 0
        expected = several.probability[:, number].sum() + several.missed[number]
        assert part[name]["recall"] == pytest.approx(stated * part[name]["precision"] / expected, rel=1e-6)
        assert part[name]["recall"] < 0.8
        assert part[name]["f1_high"] < whole[name]["f1_low"]
