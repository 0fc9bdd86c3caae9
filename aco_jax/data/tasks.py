"""What the language-model agents learn from: sequences built from the tables alone, nothing else.

    task      source                            target
    denoise   <denoise> corrupted record        the record
    ask       <ask> <relation> anchor record    <table> <level> <column>.. <sep> the query's words
    rewrite   <rewrite> <level m> record        <level m> the words of subquery m
              <sep> query
    explain   <action> record <sep> partner     the words of the reason

A query holds the most telling words that the anchor has in common with its partner, the one that it has by the tables
alone, or a second wording of it where it has none: model codes first, then by inverse document frequency in the table
to search (Sparck Jones 1972), in the order of the record. A subquery holds those of one kind, a reason those that stand
in both texts as they are read. What stands before <sep> in a query are the guardrails: the table to search, the least
relevance of an answer in eighths, the attributes spoken of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aco_jax.data import fields, noise, telling, tokens
from aco_jax.data.records import Dataset
from aco_jax.data.tokens import Tokenizer
from aco_jax.types import UNRELATED

DENOISE, ASK, REWRITE = 0, 1, 2
LEVELS = 8  # steps of the least relevance
SUBQUERIES = 3  # names; codes and numbers; the other attributes
SLACK = 0.5  # a real partner shares less than a planted one


class Examples(NamedTuple):
    """n examples, all int32: source [n, S], target [n, T] (end included), kind [n] (DENOISE ..), record [n]."""

    source: np.ndarray
    target: np.ndarray
    kind: np.ndarray
    record: np.ndarray


class Reasons(NamedTuple):
    """n reasons, all int32: relation [n], ours and theirs [n, T], the records as they are read, reason [n, T']."""

    relation: np.ndarray
    ours: np.ndarray
    theirs: np.ndarray
    reason: np.ndarray


@dataclass(frozen=True)
class Setting:
    """All that writing an example needs. `rarity[j]` is the inverse document frequency of table j's words."""

    dataset: Dataset
    tokenizer: Tokenizer
    rarity: tuple[Mapping[str, float], ...]
    silent: frozenset[str]  # columns never asked about: amounts and links
    titles: tuple[str, ...]  # the naming column of each table
    source_length: int  # S
    target_length: int  # T
    guard_columns: int  # most column tokens in a guardrail


def fit(
    dataset: Dataset,
    tokenizer: Tokenizer,
    source_length: int = 64,
    target_length: int = 28,
    guard_columns: int = 3,
) -> Setting:
    """Counts the words of all tables, and finds their naming columns."""
    rarity = tuple(telling.rarity(dataset, table) for table in range(len(dataset.tables)))
    found = fields.fit(dataset)
    silent = {name for field in found.fields if field.kind != "text" for name in field.names if name}
    title = found.fields[0].names
    titles = tuple(name or table.columns[0] for name, table in zip(title, dataset.tables, strict=True))
    lengths = (source_length, target_length, guard_columns)
    return Setting(dataset, tokenizer.knowing(dataset.columns), rarity, frozenset(silent), titles, *lengths)


def denoise(rng: np.random.Generator, setting: Setting, records: Sequence[int], alone: float = 0.1) -> Examples:
    """Corrupted record -> record: other wordings, withheld attributes, masked spans.

    A share `alone` of the sources say nothing of the record: p(record) is learned beside p(record given another).
    """
    rows = [setting.dataset.row(int(record)) for record in records]
    corrupted, masked = [], rng.random(len(rows)) < 0.5
    for row, spans in zip(rows, masked, strict=True):
        left, _ = noise.drop_attributes(rng, row, 0.15 if spans else 0.3)
        corrupted.append(left if spans else noise.corrupt(rng, left, rng.uniform(0.1, 0.5)))
    special = setting.tokenizer.special
    body = encode(setting, corrupted, records, setting.source_length - 1)
    body = np.where(masked[:, None], noise.span_mask(rng, body, special), body)
    # What is known of a record may come from another table: half the sources bear another table's tag.
    others = np.array([special.table(_other_table(rng, setting, record)) for record in records], np.int32)
    body[:, 0] = np.where(rng.random(len(rows)) < 0.5, others, body[:, 0])
    body[rng.random(len(rows)) < alone] = 0
    target = encode(setting, rows, records, setting.target_length - 1)
    return _examples(_begin(body, special.denoise), _end(setting, target), DENOISE, records)


def ask(
    rng: np.random.Generator,
    setting: Setting,
    records: Sequence[int],
    partners: np.ndarray | None = None,
    unrelated: float = 0.2,
    *,
    answered: bool = False,
) -> Examples:
    """Anchor and relation -> guardrails and query; a share `unrelated` asks for one with little in common.

    Args:
        partners: [N, tables] int32, the record of each table that goes with each record, -1 where none is known.
        answered: the known partner -> guardrails and query of the anchor, of which it is the answer.
    """
    anchors = [_wording(rng, setting, record) for record in records]
    apart = rng.random(len(records)) < unrelated
    relations = np.where(apart, UNRELATED, rng.integers(1, len(setting.dataset.relations) + 1, len(records)))
    searched = [_other_table(rng, setting, record) for record in records]
    pools = [_pool(setting, table, records) for table in range(len(setting.dataset.tables))]
    rows = [
        setting.dataset.row(_stranger(rng, setting, anchor, pools[table])) if far else anchor
        for anchor, table, far in zip(anchors, searched, apart, strict=True)
    ]
    source = ask_sources(setting, anchors, records, relations)
    shown = [None if far else row for row, far in zip(source, apart, strict=True)]
    targets = []
    found = _words(setting, rows, searched, shown)
    for row, record, words, table, far in zip(rows, records, found, searched, apart, strict=True):
        said = row if far else _said_there(rng, setting, row, record, table, partners)
        targets.append(_query(setting, words, telling.bag(said), table, bool(far)))
    if answered and partners is not None:
        answers = partners[np.asarray(records), searched]
        known = np.flatnonzero((answers >= 0) & ~apart)
        rows = [setting.dataset.row(int(record)) for record in answers[known]]
        source[known] = ask_sources(setting, rows, answers[known].tolist(), relations[known])
    return _examples(source, tokens.pad(targets, setting.target_length), ASK, records)


def rewrite(
    rng: np.random.Generator, setting: Setting, records: Sequence[int], partners: np.ndarray | None = None
) -> Examples:
    """Record and query -> its subqueries, SUBQUERIES examples a record: number m of record i at 3 i + m.

    Args:
        partners: see `ask`.
    """
    rows = [_wording(rng, setting, record) for record in records]
    searched = [_other_table(rng, setting, record) for record in records]
    room = setting.target_length - 2
    shown = encode(setting, rows, records, setting.source_length - 3 - room)
    queries, targets = [], []
    found = _words(setting, rows, searched, list(shown))
    for row, record, words, table in zip(rows, records, found, searched, strict=True):
        title = setting.titles[setting.dataset.table_of[record]]
        bag = telling.bag(_said_there(rng, setting, row, record, table, partners))
        held = [word for word in words if telling.holds(bag, word.text)]
        queries.append(telling.ids(telling.choose(held, room)))
        for number, part in enumerate(_subqueries(held or words, title)):
            chosen = telling.choose(part or held or words, room)
            targets.append([setting.tokenizer.special.level(number), *telling.ids(chosen)])
    source = rewrite_sources(setting, rows, records, tokens.pad(queries, room), SUBQUERIES)
    target = _end(setting, tokens.pad(targets, setting.target_length - 1))
    repeated = np.repeat(np.asarray(records, np.int32), SUBQUERIES)
    return _examples(source.reshape(len(target), -1), target, REWRITE, repeated)


def explain(
    rng: np.random.Generator,
    setting: Setting,
    records: Sequence[int],
    partners: np.ndarray | None,
    text_length: int,
    reason_length: int,
) -> Reasons:
    """A relation of a record and its partner -> the most telling words that both say, the end alone where none is.

    Args:
        partners: see `ask`; where none is known, a second wording of the record stands in its place.
        text_length: T, tokens of each record.
        reason_length: T', the end included.
    """
    rows, searched = [_wording(rng, setting, record) for record in records], []
    others: list[Mapping[str, str]] = []
    for row, record in zip(rows, records, strict=True):
        searched.append(_other_table(rng, setting, record))
        others.append(_said_there(rng, setting, row, record, searched[-1], partners))
    ours = encode(setting, rows, records, text_length)
    theirs = tokens.encode_rows(setting.tokenizer, others, setting.tokenizer.columns, searched, text_length)
    targets = []
    for found, own, other in zip(_words(setting, rows, searched, list(ours)), ours, theirs, strict=True):
        both = Counter(own.tolist()) & Counter(other.tolist())
        said = telling.choose(telling.seen(found, other), reason_length - 1, both)
        targets.append([*telling.ids(said), setting.tokenizer.special.eos])
    relations = rng.integers(1, len(setting.dataset.relations) + 1, len(records))
    return Reasons(relations.astype(np.int32), ours, theirs, tokens.pad(targets, reason_length))


def encode(setting: Setting, rows: Sequence[Mapping[str, str]], records: Sequence[int], length: int) -> np.ndarray:
    """Rows that stand in the tables of `records` as tokens, [n, length]."""
    tables = [int(table) for table in setting.dataset.table_of[np.asarray(records, np.int64)]]
    return tokens.encode_rows(setting.tokenizer, rows, setting.tokenizer.columns, tables, length)


def ask_sources(
    setting: Setting,
    rows: Sequence[Mapping[str, str]],
    records: Sequence[int],
    relations: Sequence[int] | np.ndarray,
) -> np.ndarray:
    """What the base reads to ask: [n, S]."""
    special = setting.tokenizer.special
    body = encode(setting, rows, records, setting.source_length - 2)
    tags = np.array([special.relation(int(relation)) for relation in relations], np.int32)
    return _begin(np.concatenate([tags[:, None], body], axis=1), special.ask)


def rewrite_sources(
    setting: Setting, rows: Sequence[Mapping[str, str]], records: Sequence[int], queries: np.ndarray, count: int
) -> np.ndarray:
    """What is read to rewrite queries [n, T'] into `count` subqueries: [n, count, S], the record cut to fit."""
    special = setting.tokenizer.special
    body = encode(setting, rows, records, setting.source_length - 3 - queries.shape[1])
    found = [
        [special.rewrite, special.level(number), *row[row > 0], special.sep, *query[query > 0]]
        for row, query in zip(body, queries, strict=True)
        for number in range(count)
    ]
    return tokens.pad(found, setting.source_length).reshape(len(queries), count, setting.source_length)


def fact_tokens(tokenizer: Tokenizer) -> np.ndarray:
    """Which tokens hold a digit, [V] bool: losing or inventing one changes what a record is."""
    texts = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    return np.array([any(sign.isdigit() for sign in text) for text in texts])


def _wording(rng: np.random.Generator, setting: Setting, record: int) -> dict[str, str]:
    row = setting.dataset.row(int(record))
    return noise.corrupt(rng, row, 0.2) if rng.random() < 0.5 else row


def _other_table(rng: np.random.Generator, setting: Setting, record: int) -> int:
    own = int(setting.dataset.table_of[record])
    table = int(rng.integers(len(setting.dataset.tables) - 1))
    return table + (table >= own)


def _said_there(
    rng: np.random.Generator,
    setting: Setting,
    row: Mapping[str, str],
    record: int,
    table: int,
    partners: np.ndarray | None,
) -> Mapping[str, str]:
    """The partner of a record in a table; where none is known, a second wording of the row."""
    known = -1 if partners is None else int(partners[record, table])
    return setting.dataset.row(known) if known >= 0 else noise.corrupt(rng, row, rng.uniform(0.1, 0.4))


def _pool(setting: Setting, table: int, records: Sequence[int]) -> np.ndarray:
    """The members of a table among `records`, so that others stay unseen; all members where there are none."""
    chosen = np.unique(np.asarray(records, np.int64))
    mine = chosen[setting.dataset.table_of[chosen] == table]
    return mine if len(mine) else np.flatnonzero(setting.dataset.table_of == table)


def _stranger(rng: np.random.Generator, setting: Setting, anchor: Mapping[str, str], pool: np.ndarray) -> int:
    """The one of four random records of a pool that shares least with the anchor, by weight of rare words."""
    drawn = [int(record) for record in rng.choice(pool, 4)]
    bag, rarity = telling.bag(anchor), setting.rarity[int(setting.dataset.table_of[drawn[0]])]
    return min(drawn, key=lambda r: sum(rarity[part] for part in bag & set(telling.parts(setting.dataset.text(r)))))


def _words(
    setting: Setting, rows: Sequence[Mapping[str, str]], searched: Sequence[int], shown: Sequence[np.ndarray | None]
) -> list[list[telling.Word]]:
    """The words of each row to ask the table that it searches with."""
    rarities = [setting.rarity[table] for table in searched]
    return telling.words(setting.tokenizer, setting.silent, rarities, rows, shown)


def _query(setting: Setting, words: Sequence[telling.Word], bag: frozenset[str], table: int, apart: bool) -> list[int]:
    special, columns = setting.tokenizer.special, setting.tokenizer.columns
    held = [word for word in words if telling.holds(bag, word.text)]
    chosen = telling.choose(held or words, setting.target_length - setting.guard_columns - 4)
    named = Counter(word.column for word in chosen).most_common(setting.guard_columns)
    spoken = sorted(columns.index(column) for column, _ in named)
    text = telling.ids([word for word in chosen if columns.index(word.column) in spoken])
    share = sum(word.score for word in held) / max(sum(word.score for word in words), 1e-9)
    level = 0 if apart else int(share * SLACK * LEVELS)
    guard = [special.table(table), special.level(level), *(special.column(i) for i in spoken), special.sep]
    return [*guard, *text, special.eos]


def _subqueries(words: Sequence[telling.Word], title: str) -> list[list[telling.Word]]:
    name = [word for word in words if word.column == title][:1] or list(words[:1])
    named = [word for word in words if word.column == title and not telling.has_digit(word.text)]
    coded = [word for word in words if telling.has_digit(word.text) and word not in name]
    others = [word for word in words if word.column != title and word not in coded and word not in name]
    return [named, name + coded if coded else [], name + others if others else []]


def _begin(body: np.ndarray, token: int) -> np.ndarray:
    return np.pad(body, ((0, 0), (1, 0)), constant_values=token).astype(np.int32)


def _end(setting: Setting, body: np.ndarray) -> np.ndarray:
    found = np.pad(body, ((0, 0), (0, 1)))
    found[np.arange(len(body)), (body > 0).sum(axis=1)] = setting.tokenizer.special.eos
    return found


def _examples(source: np.ndarray, target: np.ndarray, kind: int, records: Sequence[int] | np.ndarray) -> Examples:
    numbers = np.asarray(records, np.int32)
    return Examples(source, target, np.full(len(numbers), kind, np.int32), numbers)
