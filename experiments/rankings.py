"""How high partners stand in what the language models of a finished run find, by who puts it in order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np

from aco_jax import answer, configuration, inquiry, learner_state
from aco_jax import desk as desks
from aco_jax import train as training
from aco_jax.data import retrieval
from aco_jax.settings import TrainConfig
from aco_jax.types import Params

DEPTH = 10  # answers
ORDERS = RAW, QUERY, FUSED, READ = "raw words", "query", "query and subqueries", "all, read"


def open_run(workdir: Path) -> tuple[inquiry.Staff, training.Run]:
    """The agents of a finished run, which write what they like best, and what else it has learned."""
    config = configuration.read(workdir, TrainConfig)
    greedy = dataclasses.replace(config, train=dataclasses.replace(config.train, temperature=0.0))
    _, agents, desk, run = answer.restore(workdir, configuration.load(config.data, workdir, config.seed))
    params, everyone = training.parameters(run, agents, desk.trunk), np.arange(len(desk.problem.anchor))
    return inquiry.staff(desk, greedy, agents, params, everyone), run


def without_labels(workdir: Path) -> dict[str, float]:
    """The mean reciprocal rank (0 beyond DEPTH) of the partners that the tables alone tell, by who orders."""
    team, _ = open_run(workdir)
    problem, settled = team.desk.problem, team.desk.settled
    rows = np.flatnonzero(settled >= 0)
    partner = problem.record[rows, settled[rows]]
    return {who: reciprocal_rank(order, partner) for who, order in orders(team, rows)[1].items()}


def reciprocal_rank(order: np.ndarray, partner: np.ndarray) -> float:
    """The mean over n lists of one over the place of partner [n] in order [n, DEPTH], of 0 where it is not there."""
    there = order == partner[:, None]
    return float(np.where(there.any(axis=1), 1 / (1 + there.argmax(axis=1)), 0.0).mean())


def orders(team: inquiry.Staff, rows: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """All that is found for lists `rows` [n], and the order that each puts records in: [n, DEPTH], -1 where fewer."""
    desk, problem = team.desk, team.desk.problem
    anchors, searched = desks.standing(desk, rows), problem.table[rows]
    asked = inquiry.ask(team, anchors, jax.random.key(0))
    split = inquiry.split(team, anchors, asked, jax.random.key(1))
    subqueries = [split.found[:, number] for number in range(split.found.shape[1])]
    everything = retrieval.fuse([asked.found, asked.similar, problem.record[rows], *subqueries], DEPTH)[0]
    likely = read(team, team.agents, team.params["ranker"]["reader"], asked.written, everything)
    return everything, {
        RAW: inquiry.lexical(desk, asked.source, searched, DEPTH),
        QUERY: asked.found[:, :DEPTH],
        FUSED: retrieval.fuse([asked.found, *subqueries], DEPTH)[0],
        READ: best_first(everything, likely),
    }


def best_first(records: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Records [n, K] from the highest score [n, K] to the lowest."""
    return np.take_along_axis(records, np.argsort(-score, axis=1, kind="stable"), axis=1)


def read(
    team: inquiry.Staff,
    agents: learner_state.Config,
    reader: Params,
    written: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    """How likely query tokens [n, T] are given each of candidates [n, K], nats a token; -inf where there is none."""
    there = candidates >= 0
    row, slot = np.nonzero(there)
    found = np.full(candidates.shape, -np.inf, np.float32)
    found[row, slot] = inquiry.read_by(reader, agents, written[row], team.desk.asks[candidates[row, slot]])
    return found
