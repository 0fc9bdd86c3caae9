"""What is fitted to the tables once, and what of it a round takes: lessons and anchors.

All randomness comes from (seed, stage, round), so a run that goes on takes what it would have taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aco_jax import beginnings, learner, play, pretraining, progress, supervision
from aco_jax.agents import actor, base, ranker, rewriter
from aco_jax.data import columns, descriptions, listing, noise, retrieval, tasks, tokens, translation
from aco_jax.data.records import Dataset
from aco_jax.data.tokens import Tokenizer
from aco_jax.settings import TrainConfig
from aco_jax.types import Params

LESSONS, ANCHORS, KEYS, UNSEEN, REASONS = 1, 2, 3, 4, 5  # stages of the host's randomness
HELD = 0.1  # share of the records that no lesson is made of
EXAMPLES = 5  # words that a note shows
EXPLAINED, EXPLAINED_AT_ONCE = 100, 32  # steps in which the actor is taught reasons, and how many in each
REWORDED = (0.02, 0.2)  # from how little to how much of a record its copy says in other words


@dataclass(frozen=True)
class Desk:
    """All that is fitted to the tables once, and never by a gradient."""

    dataset: Dataset  # as it is compared and learned from
    original: Dataset  # as it was read: for people
    words: tuple[translation.Words, ...]  # of each table, read as words of the first
    notes: tuple[str, ...]  # what was done before anything was compared
    tokenizer: Tokenizer
    setting: tasks.Setting
    index: descriptions.Index
    lexical: retrieval.Lexical
    problem: listing.Problem
    settled: np.ndarray  # [R] int32, slot of the partner that a list has by the tables alone, -1 where they say none
    texts: np.ndarray  # [N, T] int32, records as the reward model reads them
    asks: np.ndarray  # [N, S] int32, records as base and reader read them
    facts: np.ndarray  # [V] bool
    trunk: Params | None = None  # what several agents have adapters of

    def beginning(self, seed: int) -> supervision.State:
        """What is believed first: all mutual best pairs where words had to be learned, which alone makes them few."""
        return supervision.init(self.problem, seed, _beginning(self.words))


@dataclass(frozen=True)
class Anchors:
    """n anchors: their lists, what stands in the anchor's place, and what is known of the answer."""

    row: np.ndarray  # [n] int32, lists
    rows: Sequence[Mapping[str, str]]  # n, column -> text
    planted: np.ndarray  # [n] bool
    truth: np.ndarray  # [n, P] int32 records that are the answer, the surest first; all -1: NULL, or nothing is known
    unsure: np.ndarray  # [n, P] int32 records of which it is not known whether they are
    hidden: np.ndarray  # [n, P] int32 records left out of the candidates, -1
    weight: np.ndarray  # [n] float32 of what is believed

    def take(self, index: np.ndarray) -> Anchors:
        """Those with these numbers [m]."""
        arrays = {name: x[index] for name, x in vars(self).items() if isinstance(x, np.ndarray)}
        return Anchors(rows=[self.rows[i] for i in index.tolist()], **arrays)


def open_desk(
    config: TrainConfig,
    dataset: Dataset,
    tokenizer: Tokenizer | None = None,
    standard: listing.Standard | None = None,
) -> Desk:
    """Fits vocabulary, evidence and retrieval to the tables.

    A tokenizer already trained is kept, and evidence is by the `standard` that a judge was taught by, if it is given.
    """
    sizes = config.model
    with progress.bar(8, "tables", stays=False) as bar:
        original, ordered = dataset, columns.restored(dataset)
        bar.update()
        words = translation.learn(ordered)
        dataset = translation.read(ordered, words)
        bar.update()
        tokenizer = tokenizer or beginnings.tokenizer(sizes.base, sizes.trunk)
        if tokenizer is None:
            tokenizer = tokens.train((dataset.text(r) for r in range(dataset.size)), sizes.vocab_size)
        bar.update()
        setting = tasks.fit(dataset, tokenizer, sizes.record_length, sizes.query_length)
        bar.update()
        index = descriptions.fit(dataset)
        bar.update()
        lexical = retrieval.fit_lexical(dataset)
        lists = retrieval.candidates(dataset, [index.records.text, index.records.title], lexical=lexical)
        bar.update()
        problem = listing.prepare(dataset, index, lists)
        if standard is not None:
            problem = listing.standardised(problem, standard)
        bar.update()
        records = range(dataset.size)
        rows = [dataset.row(r) for r in records]
        desk = Desk(
            dataset=dataset,
            original=original,
            words=words,
            notes=(*_moved(original, ordered), *_translated(dataset, words)),
            tokenizer=setting.tokenizer,
            setting=setting,
            index=index,
            lexical=lexical,
            problem=problem,
            settled=np.asarray(supervision.init(problem, 0, _beginning(words)).target),
            texts=tasks.encode(setting, rows, records, sizes.text_length),
            asks=tasks.ask_sources(setting, rows, records, [1] * dataset.size),
            facts=tasks.fact_tokens(tokenizer),
            trunk=beginnings.trunk(sizes.trunk, tokenizer) if sizes.trunk else None,
        )
        bar.update()
    return desk


def compared(dataset: Dataset) -> Dataset:
    """The tables as they are compared: values in their columns, words of the others as words of the first."""
    ordered = columns.restored(dataset)
    return translation.read(ordered, translation.learn(ordered))


def _beginning(words: Sequence[translation.Words]) -> supervision.Config:
    return supervision.ALL_MUTUAL if any(words) else supervision.Config()


def _moved(before: Dataset, after: Dataset) -> list[str]:
    if not (moved := columns.changed(before, after)):
        return []
    return [f"{moved} of {after.size} records had values in wrong columns, which were put back to be compared."]


def _translated(dataset: Dataset, words: Sequence[translation.Words]) -> list[str]:
    first, *others = (table.name for table in dataset.tables)
    found = []
    for name, known in zip(others, words[1:], strict=True):
        if known:
            examples = ", ".join(f"{word} as {meant}" for word, meant in list(known.items())[:EXAMPLES])
            found.append(f"{len(known)} words of {name} were read as words of {first} to be compared: {examples}.")
    return found


def tables(desk: Desk) -> learner.Tables:
    """What the jitted half reads of the tables."""
    return learner.Tables(texts=jnp.asarray(desk.texts), facts=jnp.asarray(desk.facts), trunk=desk.trunk)


def unseen(desk: Desk, config: TrainConfig) -> np.ndarray:
    """The records [N] bool that no lesson is made of: on copies of them it shows what was learned of the language."""
    held = np.random.default_rng([config.seed, UNSEEN]).random(desk.dataset.size) < HELD
    return held & ~held.all()


def lessons(desk: Desk, config: TrainConfig, number: int, steps: int, batch: int) -> pretraining.Lessons:
    """Supervised examples for every replica and step of supervised round `number`, leaves [R, steps, batch, ..]."""
    rng = np.random.default_rng([config.seed, LESSONS, number])
    replicas = config.train.replicas
    hidden = unseen(desk, config)
    count, seen, partners = replicas * steps * batch, np.flatnonzero(~hidden), _partners(desk, hidden)

    def draw(n: int) -> list[int]:
        return rng.choice(seen, n).tolist()

    thirds = (count // 3, count - 2 * (count // 3), count // 3)
    parts = [
        tasks.denoise(rng, desk.setting, draw(thirds[0])),
        tasks.ask(rng, desk.setting, draw(thirds[1]), partners),
        _head(tasks.rewrite(rng, desk.setting, draw(-(-thirds[2] // tasks.SUBQUERIES)), partners), thirds[2]),
    ]
    mixed = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = rng.permutation(count)
    source, target, kind, _ = (column[order] for column in mixed)
    rewriting = _head(tasks.rewrite(rng, desk.setting, draw(-(-count // tasks.SUBQUERIES)), partners), count)
    asking = tasks.ask(rng, desk.setting, draw(count), partners, unrelated=0.0, answered=True)
    pairs = _pairs_to_read(desk, rng, count, hidden)
    found = pretraining.Lessons(
        base=base.SftBatch(source, target, kind),
        rewriter=rewriter.SftBatch(rewriting.source, rewriting.target),
        reader=ranker.SftBatch(asking.source, asking.target),
        responses=pairs,
    )
    return jax.tree.map(lambda x: x.reshape(replicas, steps, batch, *x.shape[1:]), found)


def reasons(desk: Desk, config: TrainConfig, agents: actor.Config) -> actor.Reasons:
    """Reasons that the actor is taught, leaves [EXPLAINED, EXPLAINED_AT_ONCE, ..]."""
    rng = np.random.default_rng([config.seed, REASONS])
    hidden = unseen(desk, config)
    records = rng.choice(np.flatnonzero(~hidden), EXPLAINED * EXPLAINED_AT_ONCE).tolist()
    lengths = (desk.texts.shape[1], agents.reason_length)
    found = tasks.explain(rng, desk.setting, records, _partners(desk, hidden), *lengths)
    source = actor.reason_source(agents, found.relation - 1, found.ours, found.theirs)
    rows = actor.Reasons(source, found.reason)
    return jax.tree.map(lambda x: x.reshape(EXPLAINED, EXPLAINED_AT_ONCE, *x.shape[1:]), rows)


def choose(
    desk: Desk,
    config: TrainConfig,
    believed: supervision.State,
    rng: np.random.Generator,
    number: int,
    lists: np.ndarray | None = None,
) -> Anchors:
    """The anchors of a round. Replicas own disjoint lists, and go through them in an order of their own.

    A planted anchor is a record in other words; its answer is the partner that it had before anything was learned, or
    NULL where that is hidden. The place of a list without such a partner another of the replica's takes. Copies of the
    partner itself are no measure: they are nearer to it than any record of another table, and whoever says yes to
    everything finds them all.

    Args:
        lists: [n] those to take from, at least one; all by default. Where a replica owns fewer than it needs it
            takes them more than once, and where there are fewer lists than replicas, some have the same one.
    """
    run, problem = config.train, desk.problem
    each = run.merge_every * run.anchors_per_step
    lists = np.arange(len(problem.anchor)) if lists is None else lists
    turns = np.stack([_turn(config, lists, replica, number, each) for replica in range(run.replicas)])
    planted = rng.random(turns.shape) < run.planted
    for replica, row in enumerate(turns):
        settled = _own(config, lists, replica)
        settled = settled[desk.settled[settled] >= 0]
        instead = planted[replica] & (desk.settled[row] < 0)
        if len(settled):
            row[instead] = rng.choice(settled, int(instead.sum()))
    rows, planted = turns.reshape(-1), planted.reshape(-1)
    planted &= desk.settled[rows] >= 0
    taken = rng.random(len(rows)) < run.hidden
    slot = np.where(planted, desk.settled[rows], np.asarray(believed.target)[rows])
    first = np.where(slot >= 0, problem.record[rows, np.maximum(slot, 0)], -1)[:, None]
    also = np.where(supervision.partners(problem, believed, rows), problem.record[rows], -1)
    also = np.where(also == first, -1, also)
    partners, held = np.concatenate([first, also], axis=1), (planted & ~taken)[:, None]
    contents = [desk.dataset.row(int(record)) for record in problem.anchor[rows]]
    for i in np.flatnonzero(planted):
        contents[i] = noise.corrupt(rng, contents[i], rng.uniform(*REWORDED))
    return Anchors(
        row=rows,
        rows=contents,
        planted=planted,
        # A hidden match: the partners are taken out, and NULL is right.
        truth=np.where(taken[:, None], -1, np.concatenate([first, np.where(held, -1, also)], axis=1)),
        unsure=np.where(held, also, -1),
        hidden=np.where(taken[:, None], partners, -1),
        weight=np.where(planted, 1.0, np.asarray(believed.weight)[rows]).astype(np.float32),
    )


def standing(desk: Desk, rows: np.ndarray) -> Anchors:
    """The records of lists `rows` as they stand in the tables, nothing known and nothing hidden."""
    nobody = np.full((len(rows), 1), -1)
    return Anchors(
        row=rows,
        rows=[desk.dataset.row(int(record)) for record in desk.problem.anchor[rows]],
        planted=np.zeros(len(rows), bool),
        truth=nobody,
        unsure=nobody,
        hidden=nobody,
        weight=np.zeros(len(rows), np.float32),
    )


def _partners(desk: Desk, hidden: np.ndarray) -> np.ndarray:
    """The partner in each table that each record has by the tables alone, none hidden [N]: [N, tables] int32, -1."""
    problem, found = desk.problem, np.full((desk.dataset.size, len(desk.dataset.tables)), -1, np.int32)
    rows = np.flatnonzero(desk.settled >= 0)
    partner = problem.record[rows, desk.settled[rows]]
    found[problem.anchor[rows], problem.table[rows]] = np.where(hidden[partner], -1, partner)
    return found


def _own(config: TrainConfig, lists: np.ndarray, replica: int) -> np.ndarray:
    return lists[replica % len(lists) :: config.train.replicas]


def _turn(config: TrainConfig, lists: np.ndarray, replica: int, number: int, count: int) -> np.ndarray:
    """The lists that a replica takes in a round: its own share, shuffled anew each time it is through."""
    own = _own(config, lists, replica)
    first = number * count
    taken: list[int] = []
    for position in range(first, first + count):
        epoch, place = divmod(position, len(own))
        if not taken or place == 0:
            order = np.random.default_rng([config.seed, ANCHORS, replica, epoch]).permutation(own)
        taken.append(order[place])
    return np.array(taken, np.int32)


def _pairs_to_read(desk: Desk, rng: np.random.Generator, count: int, hidden: np.ndarray) -> np.ndarray:
    """Responses for the reward model's trunk to learn the language of, of records that are not hidden [N].

    [count, 2 T + reason + 3]. Where no pair is left, of any.
    """
    anchor, likely = desk.problem.anchor, desk.problem.record[:, :4]
    seen = (likely >= 0) & ~hidden[anchor][:, None] & ~hidden[np.maximum(likely, 0)]
    pairs = np.argwhere(seen if seen.any() else likely >= 0)
    rows, slot = pairs[rng.integers(0, len(pairs), count)].T
    stated = play.respond(desk.tokenizer.special, desk.texts[anchor[rows]], desk.texts[likely[rows, slot]], 1)
    return np.asarray(stated)


def _head(examples: tasks.Examples, count: int) -> tasks.Examples:
    return tasks.Examples(*(column[:count] for column in examples))
