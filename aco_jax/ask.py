"""Answers a request in plain language with records and reasons. Trains nothing.

    request -> rewriter, int8 and greedy -> subqueries
    request and subqueries, each in every table -> BM25 -> reciprocal-rank fusion -> score
    reader, int8: log p(request | record), nats a token -> order of those with equal scores
    actor, greedy -> a reason for each answer

Scores of BM25 are not on one scale across tables, so that the best of each table stand equal: there the reader decides.
150 requests made of 3 to 6 words of a reworded record (the built-in catalogues, one run, others than the ones this was
chosen on) found that record at a mean reciprocal rank of 0.53 by the request alone, 0.65 with the reader among equals,
0.63 with subqueries, 0.66 with both; standard error 0.03. With subqueries a random order of equals gives 0.64: there
the reader has yet to show its worth. Fusing its order in as a ranking of its own did harm.

To the rewriter a request is a record that has a name and nothing else: with no record before <sep> it invents more. To
the actor it is its words alone, for the reason then speaks of the record.

Sources: Ma et al. 2023, Query Rewriting for Retrieval-Augmented LLMs; Ponte and Croft 1998 (query likelihood);
Cormack, Clarke and Buettcher 2009 (reciprocal-rank fusion).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aco_jax import answer, configuration, inquiry, learner_state
from aco_jax import train as training
from aco_jax.agents import rewriter
from aco_jax.data import retrieval, tasks, translation
from aco_jax.data.records import InputError
from aco_jax.desk import Desk
from aco_jax.models import quantization
from aco_jax.settings import TrainConfig
from aco_jax.types import Params

SHOWN = 80  # letters of a request that an error repeats


@dataclass(frozen=True)
class Answer:
    """A record that answers a request."""

    table: str
    id: str
    text: str
    score: float  # sum of 1 / (60 + rank in a table) over the request and its subqueries
    reading: float  # log p(request | record), nats a token
    reason: str  # in words of the request and of the record


@dataclass(frozen=True)
class Reply:
    """What is answered to a request, best first."""

    request: str
    subqueries: tuple[str, ...]
    answers: tuple[Answer, ...]


def ask(workdir: Path, request: str, k: int) -> Reply:
    """At most k answers from the run's own tables. Raises InputError."""
    if not request.strip():
        raise InputError("--request: empty, expected words that say what is sought")
    if not (workdir / "summary.json").is_file():
        raise InputError(f"--workdir: {workdir / 'summary.json'}: no such file, expected a finished run's folder")
    data = configuration.read(workdir, TrainConfig).data
    dataset = configuration.load_folder(data, configuration.data_folder(data, workdir))
    config, agents, desk, run = answer.restore(workdir, dataset)
    return reply(desk, config, agents, training.parameters(run, agents, desk.trunk), request, k)


def reply(
    desk: Desk, config: TrainConfig, agents: learner_state.Config, params: dict[str, Params], request: str, k: int
) -> Reply:
    """At most k answers to a request. Raises InputError where the tables hold none of its words."""
    depth, asked = max(k, config.train.candidates), request
    for words in filter(None, desk.words):
        asked = translation.put(asked, words)
    if len(search(desk, [asked], depth)[0]) == 0:
        shown = request if len(request) <= SHOWN else f"{request[:SHOWN]} .."
        raise InputError(f"--request: {shown!r} has no word of the tables, expected at least one")
    subqueries = split(desk, agents, params["rewriter"], asked, config.train.rewrites)
    record, score = search(desk, [asked, *subqueries], depth)
    reading = read(desk, agents, params["ranker"]["reader"], asked, record)
    best = np.lexsort((-reading, -score))[:k]
    record, score, reading = record[best], score[best], reading[best]
    reasons = explain(desk, agents, params["actor"], asked, record)
    answers = tuple(
        Answer(*desk.dataset.key(r), desk.original.text(r), s, nats, reason)
        for r, s, nats, reason in zip(record.tolist(), score.tolist(), reading.tolist(), reasons, strict=True)
    )
    return Reply(request, subqueries, answers)


def split(desk: Desk, agents: learner_state.Config, params: Params, request: str, count: int) -> tuple[str, ...]:
    """The subqueries of a request, `count` texts; a request longer than a query is cut."""
    query = desk.tokenizer.encode([request], agents.rewriter.length - 2)
    source = tasks.rewrite_sources(desk.setting, [{desk.setting.titles[0]: request}], [0], query, count)
    small = quantization.quantize(params, agents.rewriter.bits)
    written = rewriter.rewrite(small, agents.rewriter, jnp.asarray(source), jax.random.key(0), temperature=0.0).tokens
    return tuple(desk.tokenizer.decode(tokens) for tokens in np.asarray(written)[0])


def search(desk: Desk, texts: Sequence[str], depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The records [n] that the texts find, `depth` a text and table, and their fused scores [n].

    A text counts once, however often it is there.
    """
    rankings = [
        retrieval.search(desk.lexical, [text], table, depth)[0]
        for text in dict.fromkeys(texts)
        for table in range(len(desk.dataset.tables))
    ]
    record, score = retrieval.fuse(rankings, depth * len(rankings))
    found = record[0] != retrieval.EMPTY
    return record[0][found], score[0][found]


def read(desk: Desk, agents: learner_state.Config, reader: Params, request: str, record: np.ndarray) -> np.ndarray:
    """log p(request | record) of records [n], nats a token, [n]; a request longer than a query is cut."""
    query = desk.tokenizer.encode([request], agents.base.query_length)
    return inquiry.relevances(reader, agents, np.repeat(query, len(record), axis=0), desk.asks[record])


def explain(desk: Desk, agents: learner_state.Config, params: Params, request: str, record: np.ndarray) -> list[str]:
    """The actor's reason for each of records [n], in words that both the request and the record say."""
    ours = desk.tokenizer.encode([request] * len(record), desk.texts.shape[1])
    _, reasons = inquiry.reasons(agents, params, ours, desk.texts[record], jax.random.key(0), 0.0)
    return inquiry.in_words(desk, reasons, ours, desk.texts[record])
