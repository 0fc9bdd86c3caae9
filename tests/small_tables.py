"""Small tables, their lists, and scores as a judge would give them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from aco_jax.data import descriptions, listing, noise, records, retrieval

NAMES = ["red apple a100", "green pear b200", "blue plum c300", "grey fig d400"]
WORDS = ["apple", "bridge", "candle", "desert", "engine", "forest", "garden", "harbor", "island", "kettle", "meadow"]


def problem_of(tables, k=4):
    """The lists of tables {name: names of its records}, of k candidates."""
    frames = {
        table: pd.DataFrame({"id": [str(row) for row in range(len(names))], "name": names})
        for table, names in tables.items()
    }
    dataset = records.from_frames(frames)
    index = descriptions.fit(dataset)
    return listing.prepare(dataset, index, retrieval.candidates(dataset, [index.records.text], k=k, depth=k))


def logits_of(problem, pairs, high=6.0, low=-6.0):
    alike = [
        [(min(a, b), max(a, b)) in pairs for b in row] for a, row in zip(problem.anchor, problem.record, strict=True)
    ]
    return np.where(np.array(alike), high, low)


def likely(problem, state):
    return {(int(a), int(b)) for a, b in problem.pair[state.posterior > 0.5]}


def said_twice():
    """Table b says each record of a twice; with the pairs that are right."""
    rows = [f"item {k} code{k}{k}{k}" for k in range(4)]
    problem = problem_of({"a": rows, "b": [r for r in rows for _ in range(2)]}, k=8)
    return problem, {(k, 4 + 2 * k + n) for k in range(4) for n in range(2)}


class Case(NamedTuple):
    dataset: records.Dataset
    index: descriptions.Index
    problem: listing.Problem
    halves: list[listing.Problem]
    about: np.ndarray  # what each record is about


def case(times: int, things: int) -> Case:
    """Two tables that say each thing `times` times, in other words each time; half of the things where it is once."""
    rng = np.random.default_rng(0)
    named = [" ".join(rng.choice(WORDS, 4, replace=False)) + f" {rng.integers(100, 999)}" for _ in range(things)]
    tables, about = {}, []
    for number, table in enumerate("ab"):
        known = np.arange(things) if times > 1 else np.arange(things // 2) + number * (things // 4)
        said = np.repeat(known, times)
        rows = [noise.corrupt(rng, {"title": named[thing], "note": f"of {named[thing]}"}, 0.2) for thing in said]
        tables[table] = pd.DataFrame(rows).fillna("").assign(id=[str(i) for i in range(len(rows))])
        about.append(said)
    dataset = records.from_frames(tables)
    index = descriptions.fit(dataset)
    lists = retrieval.candidates(dataset, [index.records.text, index.records.title], k=8)
    problem = listing.prepare(dataset, index, lists)
    return Case(dataset, index, problem, listing.halves(dataset, index, problem, 0), np.concatenate(about))
