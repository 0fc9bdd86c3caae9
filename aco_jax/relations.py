"""Relations beyond identity, without a label: what can stand in for a record, and what goes with it.

A substitute is another thing of the same kind and size; a complement is a thing of a kind that goes with this one and
of its size. Both hold of many records at once, so that each pair is judged for itself and nothing competes: the
probabilities of a pair are (1 - p(same)) p(kinds) p(sizes), and with "unrelated" they sum to 1. How far kinds and sizes
can be trusted is seen on the pairs that are believed to be the same, whose kinds and sizes must be equal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aco_jax.data import kinds as sorts
from aco_jax.data.records import InputError, Relation
from aco_jax.types import UNRELATED

# What a relation asks for is read from its name and, where that says nothing, its definition.
_WORDS = {
    "complement": r"complement\w*|compatib\w*|accessor\w+|fits?|goes with|works? with|used with",
    "substitute": r"substitut\w*|alternativ\w*|replac\w+|stands? in|instead|interchangeabl\w*|equivalent",
    "same": r"same|identi\w+|duplicat\w*|match\w*|one and the same",
}
PRIOR, LEAST = 0.05, 0.005  # how often kinds and sizes are wrong: before anything is seen, and at the least


@dataclass(frozen=True)
class Roles:
    """The number (1..Y) of the relation that asks for each, 0 where none does."""

    same: int
    substitute: int
    complement: int

    @property
    def beyond(self) -> bool:
        """Whether more is asked for than which records are the same."""
        return self.substitute > 0 or self.complement > 0


@dataclass(frozen=True)
class Errors:
    """How often two records of one kind are held to be of two, and equal sizes to be different, in (0, 1/2]."""

    kind: float
    size: float


def roles(relations: Sequence[Relation]) -> Roles:
    """What the relations of a config ask for. A sole relation that does not say what it is asks for the same thing.

    Raises InputError where one of several does not say it, where two ask for one thing, and where partners are limited
    of what holds of many records at once.
    """
    found: dict[str, int] = {}
    for number, relation in enumerate(relations, start=1):
        role = _role(relation)
        if role is None and len(relations) > 1:
            raise InputError(
                f"config.data.relations.{relation.name}: neither its name nor {relation.definition!r} says whether the "
                f"same, a substitute or a complement is sought, expected a word such as 'same', 'stand in', 'fits'"
            )
        role = role or "same"
        if role in found:
            first = relations[found[role] - 1].name
            raise InputError(f"config.data.relations: {first} and {relation.name} both ask for a {role}, expected one")
        if role != "same" and relation.max_partners is not None:
            raise InputError(
                f"config.data.relations.{relation.name}.max_partners: {relation.max_partners}, expected None: any "
                f"number of records may be a {role} of one"
            )
        found[role] = number
    return Roles(**{role: found.get(role, 0) for role in _WORDS})


def identity(relations: Sequence[Relation]) -> Relation:
    """The relation that asks for the same thing; where none says so, the first."""
    return next((relation for relation in relations if _role(relation) == "same"), relations[0])


def errors(kinds: sorts.Kinds, pair: np.ndarray, same: np.ndarray) -> Errors:
    """Estimated on pairs [P, 2] that are the same with probability same [P]: each counts as it is likely.

    PRIOR stands for one pair more: where nothing is believed to be the same, for all that is known.
    """
    one, _, sized, equal = sorts.agreement(kinds, pair[:, 0], pair[:, 1])
    likely = np.where(same > 0.5, same, 0.0)

    def rate(wrong: np.ndarray, among: np.ndarray) -> float:
        share = (PRIOR + float(likely[wrong & among].sum())) / (1 + float(likely[among].sum()))
        return min(max(share, LEAST), 0.5)

    return Errors(rate(~one, np.ones(len(one), bool)), rate(~equal, one & sized))


def probabilities(kinds: sorts.Kinds, wrong: Errors, sought: Roles, pair: np.ndarray, same: np.ndarray) -> np.ndarray:
    """[P, Y + 1] of pairs [P, 2]: column 0 "unrelated", then the relations by number; every row sums to 1.

    Args:
        same: [P] how likely each pair is one and the same thing.
    """
    one, together, sized, equal = sorts.agreement(kinds, pair[:, 0], pair[:, 1])
    alike = np.where(sized, np.where(equal, 1 - wrong.size, wrong.size), 0.0)
    alike[~sized] = sorts.one_size(kinds, *pair[~sized].T)
    rest = 1 - same
    found = np.zeros((len(pair), 1 + max(sought.same, sought.substitute, sought.complement)))
    # Two records held to be of one kind are of two as often as the other way round.
    for number, kin in ((sought.substitute, one), (sought.complement, together)):
        if number:
            found[:, number] = rest * np.where(kin, 1 - wrong.kind, 0.0) * alike
    if sought.same:
        found[:, sought.same] = same
    found[:, UNRELATED] = np.maximum(1 - found.sum(axis=1), 0.0)
    return found


def missed(kinds: sorts.Kinds, wrong: Errors, sought: Roles, pair: np.ndarray, table_of: np.ndarray) -> np.ndarray:
    """[Y + 1]: pairs of each relation beyond identity that are expected beside the pairs [P, 2] looked at, each once.

    They are those of equal sizes that are none of the P, of which each is as likely as one that is. table_of: [N].
    """
    one, together, _, equal = sorts.agreement(kinds, pair[:, 0], pair[:, 1])
    found = np.zeros(1 + max(sought.same, sought.substitute, sought.complement))
    every = sorts.count_partners(kinds, table_of)
    for number, kin, count in zip((sought.substitute, sought.complement), (one, together), every, strict=True):
        if number:
            found[number] = (count - np.sum(kin & equal)) * (1 - wrong.kind) * (1 - wrong.size)
    return found


def _role(relation: Relation) -> str | None:
    """The first role that the name names, or else the definition."""
    for text in (relation.name, relation.definition):
        for role, words in _WORDS.items():
            if re.search(rf"\b({words})\b", re.sub(r"_", " ", text.lower())):
                return role
    return None
