"""What crosses the rooms.

Axis letters, used in every docstring of the project:
  R replicas, N records, B anchors, M rewrites, K candidates a row, L = (M + 1) * K candidates of an
  anchor, Y relations (without "unrelated"), F evidence items, T tokens, P pairs, D width,
  V vocabulary, S states, A actions, C columns, E members of an ensemble.

Leading axes marked `..` are free: `[B]` for one replica, `[R, B]` for all of them.
A relation is an int: 0 is "unrelated", 1..Y are the data set's, -1 is "not known".
A record is an int: its row in the concatenation of all tables; -1 is "no record".
"""

from __future__ import annotations

import chex
from flax import struct

Params = chex.ArrayTree  # plain nested dicts of arrays
Metrics = dict[str, chex.Array]  # name -> scalar

UNRELATED = 0
UNKNOWN = -1


@struct.dataclass
class Query:
    """What the base asks about an anchor, and the guardrails that decoding obeys.

    Answers below `least_relevance` cost the base a penalty and stay candidates.
    """

    tokens: chex.Array  # [.., T] int32, padded with 0, guardrail tokens left out
    log_prob: chex.Array  # [..] float32, nats, of the sampled tokens under the asking model
    relation: chex.Array  # [..] int32, the relation asked for
    table: chex.Array  # [..] int32, the table to search
    columns: chex.Array  # [.., C] bool, the attributes the query may speak of
    least_relevance: chex.Array  # [..] float32 in [0, 1], answers below it are outside the guardrail


@struct.dataclass
class Candidates:
    """The records found for each anchor. Row 0 is the query's, rows 1..M are the rewrites'.

    A record stands in the first row that found it only.
    """

    record: chex.Array  # [.., M + 1, K] int32, -1 where empty
    evidence: chex.Array  # [.., M + 1, K, F] float32, standardised
    validity: chex.Array  # [.., M + 1, K] float32 in [0, 1], 1 where no fact contradicts
    reading: chex.Array  # [.., M + 1, K] float32, the ranker's relevance, standardised; hidden until READ
    tokens: chex.Array  # [.., M + 1, K] int32, what reading the candidate costs


@struct.dataclass
class Belief:
    """What is believed of candidates without a label. Never derived from gold."""

    relation: chex.Array  # [.., M + 1, K] int32, UNKNOWN where nothing is believed
    weight: chex.Array  # [..] float32, 0 leaves the anchor out
    planted: chex.Array  # [..] bool, True where known before anything was learned: the shared reward uses these only


@struct.dataclass
class Ranking:
    """An order of an anchor's candidates, one for each relation."""

    score: chex.Array  # [.., M + 1, K, Y] float32, a logit; NULL ("none of these") stands at 0
    permutation: chex.Array  # [.., K] int32, always a permutation of 0..K-1
    log_prob: chex.Array  # [..] float32, Plackett-Luce log-probability of the permutation


@struct.dataclass
class Preference:
    """The responses to one anchor and the pairs of them of which the ranker prefers the first.

    A response states a relation for a candidate; n = K * Y + 1, candidates before relations, and the
    last response is NULL ("none of these").
    """

    response: chex.Array  # [.., n, T] int32
    evidence: chex.Array  # [.., K, F] float32
    rules: chex.Array  # [.., K, Y] float32, what the rule verifiers say; NULL stands at 0
    chosen: chex.Array  # [.., P] int32 in [0, n)
    rejected: chex.Array  # [.., P] int32 in [0, n)
    weight: chex.Array  # [.., P] float32, 0 masks a pair


@struct.dataclass
class Transition:
    """One step of the decision process. Holds no candidate slot: slots change each round."""

    s_tm1: chex.Array  # [..] int32 in [0, S)
    a_tm1: chex.Array  # [..] int32 in [0, A)
    r_t: chex.Array  # [..] float32
    discount_t: chex.Array  # [..] float32, 0 on termination, not on truncation
    s_t: chex.Array  # [..] int32 in [0, S)
    mu_tm1: chex.Array  # [..] float32, behaviour probability of a_tm1
    anchor: chex.Array  # [..] int32 record
    record: chex.Array  # [..] int32 record, -1 where the action names none
    query: chex.Array  # [..] int32, number of the query within the run
