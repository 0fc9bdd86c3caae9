"""One replica's episodes: rank the candidates, prefer, play, and share the reward out.

Everything here is a constant for the gradients of `learner`; only the behaviour is sampled.
"""

from __future__ import annotations

import dataclasses

import chex
import jax
import jax.numpy as jnp
from flax import struct

from aco_jax import environment, exploration, shared_reward
from aco_jax.agents import null_shift, ranker
from aco_jax.data.tokens import Special
from aco_jax.models import judge
from aco_jax.ops import preference, ranking, sequences, states
from aco_jax.types import UNRELATED, Belief, Candidates, Params, Preference

SCORED = 4  # candidates of an anchor whose text the reward model reads


@struct.dataclass
class Batch:
    """What the host prepared for B anchors."""

    anchor: chex.Array  # [B] int32 record; a planted anchor is this record in other words
    text: chex.Array  # [B, T] int32, the anchor as the reward model reads it
    query: chex.Array  # [B] int32, number of the query within the run
    ask_source: chex.Array  # [B, S] int32
    written: chex.Array  # [B, T] int32, guardrails and query
    searched: chex.Array  # [B] int32, the table that the query had to search
    rewrite_source: chex.Array  # [B, M, S] int32
    subquery: chex.Array  # [B, M, T] int32, in the ranker's order
    merits: chex.Array  # [B, M, 3] what that order went by
    candidates: Candidates  # [B, M + 1, K, ..]
    belief: Belief  # [B, M + 1, K]
    fold: chex.Array  # [B] int32 of cross-fitting, -1 for a planted anchor
    missed: chex.Array  # [B, Y] planted partners that no query found
    reverse: chex.Array  # [B, M + 1, K] support of the candidate's own search for the anchor
    shares: chex.Array  # [B, 2] share of records with a partner, with several
    lost: chex.Array  # [B] float32, evidence that the query misses, see `outcomes.lost`
    least_relevance: chex.Array  # [B] float32, of the query's guardrails
    reason_source: chex.Array  # [B, S] int32
    reason: chex.Array  # [B, T] int32
    reason_value: chex.Array  # [B] how well the reason tells its candidate, less its price


@struct.dataclass
class Ranked:
    """What the ranker makes of B anchors' candidates, flattened to L = (M + 1) * K."""

    members: chex.Array  # [E, B, L, Y] logits without the reading
    blind: chex.Array  # [B, L, Y] probabilities without the reading
    read: chex.Array  # [B, L, Y] probabilities with the reading
    score: chex.Array  # [B, L, Y] logits with the reading
    order: chex.Array  # [B, L] sampled order, larger first
    permutation: chex.Array  # [B, L] int32, the order as a permutation


@struct.dataclass
class Shared:
    """The shared reward and what it is for each agent."""

    score: shared_reward.Score
    credit: chex.Array  # [B] each anchor's own part
    base: chex.Array  # [B] advantage of the agent: reward less penalty less baseline
    rewriter: chex.Array  # [B]
    ranker: chex.Array  # [B]
    penalties: dict[str, chex.Array]  # agent -> mean penalty, for the record


@struct.dataclass
class Shifted:
    """The shifts of the NULL logit that B anchors were played with."""

    state: chex.Array  # [B] int32, where each walk would have begun without
    shift: chex.Array  # [B] float32
    noise: chex.Array  # [] standard deviation


def rank(
    params: Params,
    config: ranker.Config,
    batch: Batch,
    key: chex.PRNGKey,
    temperature: chex.Numeric,
    shift: chex.Numeric = 0.0,
) -> Ranked:
    """Scores with and without the reading, by members that did not learn from the anchor; a sampled order.

    Args:
        temperature: of the order; 0 sorts.
        shift: added to all logits, a scalar or [B, 1, 1, 1]: where the share with a partner is not a half.
    """
    candidates = batch.candidates
    mask = flat(candidates.record >= 0)
    members = ranker.member_scores(params, config, candidates, revealed=False)
    blind = judge.held_out(members, batch.fold, config.folds) + shift
    score = judge.held_out(ranker.member_scores(params, config, candidates, True), batch.fold, config.folds) + shift
    top = jnp.max(flat(blind), axis=-1)
    permutation = jax.vmap(ranking.sample_permutation, (0, 0, 0, None))(
        jax.random.split(key, top.shape[0]), top, mask, jnp.float32(temperature)
    )
    place = jnp.argsort(permutation, axis=1)
    return Ranked(
        members=members.reshape(*members.shape[:2], -1, members.shape[-1]),
        blind=_posterior(blind, candidates),
        read=_posterior(score, candidates),
        score=flat(score),
        order=-place.astype(jnp.float32),
        permutation=permutation,
    )


def flat(x: chex.Array) -> chex.Array:
    """[B, M + 1, K, ..] -> [B, L, ..]."""
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def responses(special: Special, batch: Batch, texts: chex.Array, relations: int) -> chex.Array:
    """The text of stating each relation for each candidate, and of NULL: [B, L * Y + 1, T].

    <relation> anchor <sep> candidate <eos>; NULL is <unrelated> anchor <eos>.
    """
    record = flat(batch.candidates.record)
    candidate = jnp.where(record[..., None] >= 0, texts[jnp.maximum(record, 0)], 0)
    stated = jnp.stack([respond(special, batch.text[:, None], candidate, 1 + y) for y in range(relations)], axis=2)
    null = respond(special, batch.text, jnp.zeros_like(batch.text), UNRELATED)
    stated = stated.reshape(stated.shape[0], -1, stated.shape[-1])
    return jnp.concatenate([stated, null[:, None]], axis=1)


def respond(
    special: Special,
    anchor: chex.Array,
    candidate: chex.Array,
    relation: int,
    reason: chex.Array | None = None,
    reason_length: int = 0,
) -> chex.Array:
    """One response, anchor and candidate [.., T] each -> [.., 2 T + reason_length + 4]."""
    shape = jnp.broadcast_shapes(anchor.shape[:-1], candidate.shape[:-1])

    def one(token: int) -> chex.Array:
        return jnp.full((*shape, 1), token, jnp.int32)

    def whole(tokens: chex.Array) -> chex.Array:
        return jnp.broadcast_to(tokens, (*shape, tokens.shape[-1]))

    parts = [one(special.relation(relation)), whole(anchor)]
    if relation != UNRELATED:
        parts += [one(special.sep), whole(candidate)]
    if reason is not None:
        parts += [one(special.sep), whole(jnp.where(reason == special.eos, 0, reason))]
    joined = sequences.join([*parts, one(special.eos)])
    length = 2 * anchor.shape[-1] + reason_length + 4
    return jnp.pad(joined, [(0, 0)] * len(shape) + [(0, length - joined.shape[-1])])


def likeliest(batch: Batch, ranked: Ranked) -> tuple[Batch, chex.Array]:
    """The batch with the SCORED likeliest candidates of each anchor as its only row, and which they are, [B, n]."""
    filled = flat(batch.candidates.record >= 0)
    blind = jnp.where(filled, jnp.max(ranked.blind, axis=-1), -1.0)
    place = jax.lax.top_k(blind, min(SCORED, blind.shape[1]))[1]

    def pick(x: chex.Array) -> chex.Array:
        return jnp.take_along_axis(flat(x), place.reshape(*place.shape, *(1,) * (x.ndim - 3)), axis=1)[:, None]

    return dataclasses.replace(batch, candidates=jax.tree.map(pick, batch.candidates)), place


def spread_out(x: chex.Array, place: chex.Array, count: int) -> chex.Array:
    """What is known [B, n, Y] of candidates place [B, n] -> of all L = count, the others having the least of it."""
    at = place[:, :, None] == jnp.arange(count)[None, None]
    known = jnp.einsum("bnl,bny->bly", at.astype(x.dtype), x)
    return jnp.where(at.any(axis=1)[..., None], known, jnp.min(x, axis=1, keepdims=True))


def all_preferences(special: Special, batch: Batch, texts: chex.Array, relations: int) -> Preference:
    """Every response to each anchor, without pairs: what `reward.score` reads."""
    response = responses(special, batch, texts, relations)
    none = jnp.zeros((response.shape[0], 0), jnp.int32)
    validity = flat(batch.candidates.validity)[..., None] - 0.5
    return Preference(
        response=response,
        evidence=flat(batch.candidates.evidence),
        rules=jnp.broadcast_to(validity, (*validity.shape[:-1], relations)),
        chosen=none,
        rejected=none,
        weight=none.astype(jnp.float32),
    )


def prefer(special: Special, batch: Batch, texts: chex.Array, ranked: Ranked) -> Preference:
    """What the ranker prefers among row 0's responses and NULL: all pairs of its ranking."""
    first = dataclasses.replace(batch, candidates=jax.tree.map(lambda x: x[:, :1], batch.candidates))
    count, relations = batch.candidates.record.shape[2], ranked.score.shape[-1]
    rows = batch.anchor.shape[0]
    score = ranked.score[:, :count].reshape(rows, -1)
    valid = jnp.repeat(batch.candidates.record[:, 0] >= 0, relations, axis=1)
    score, valid = jnp.pad(score, ((0, 0), (0, 1))), jnp.pad(valid, ((0, 0), (0, 1)), constant_values=True)

    def pairs(score: chex.Array, valid: chex.Array) -> tuple[chex.Array, chex.Array, chex.Array]:
        order = ranking.sample_permutation(jax.random.key(0), score, valid, jnp.float32(0))
        return preference.pairs(order, valid)

    chosen, rejected, weight = jax.vmap(pairs)(score, valid)
    every = all_preferences(special, first, texts, relations)
    return dataclasses.replace(every, chosen=chosen, rejected=rejected, weight=weight)


def problems(batch: Batch, ranked: Ranked, value: chex.Array, spread: chex.Array) -> environment.Problem:
    """The walks of B anchors. value, spread [B, L, Y] are the reward model's."""
    candidates = batch.candidates
    rows, slots = candidates.record.shape[1:]
    row = jnp.broadcast_to(jnp.arange(rows)[None, :, None], candidates.record.shape)
    return environment.Problem(
        anchor=batch.anchor,
        query=batch.query,
        record=flat(candidates.record),
        row=flat(row),
        valid=flat(candidates.record >= 0),
        order=ranked.order,
        posterior=ranked.blind,
        posterior_read=ranked.read,
        reverse=flat(batch.reverse),
        validity=flat(candidates.validity),
        reading=flat(candidates.reading),
        ready=jnp.ones((batch.anchor.shape[0], rows * slots), bool),
        pending=jnp.zeros(batch.anchor.shape[0], bool),
        tokens=flat(candidates.tokens),
        reward=value,
        spread=jnp.mean(spread, axis=-1),
        shares=batch.shares,
    )


def mean_shift(
    params: Params,
    config: null_shift.Config,
    process: environment.Config,
    edges: states.Edges,
    problem: environment.Problem,
) -> tuple[chex.Array, chex.Array]:
    """The states [B] that walks of B anchors begin in, and what the NULL logit is to be shifted by there, [B]."""
    start = jax.vmap(environment.reset)(problem)
    first = jax.vmap(lambda one, state: environment.observe(process, edges, one, state))(problem, start)
    return first.state, null_shift.act(params, config, first.factors)


def shift_null(
    params: Params,
    config: null_shift.Config,
    process: environment.Config,
    edges: states.Edges,
    problem: environment.Problem,
    noise: chex.Array,
    key: chex.PRNGKey,
) -> tuple[environment.Problem, Shifted]:
    """The walks of B anchors with their NULL logits shifted, noise [] added, and what they were shifted by."""
    state, mean = mean_shift(params, config, process, edges, problem)
    shift = exploration.noisy_shift(key, mean, noise)
    return jax.vmap(environment.shift_null)(problem, shift), Shifted(state=state, shift=shift, noise=noise)


def walk(
    config: environment.Config,
    edges: states.Edges,
    problem: environment.Problem,
    log_policy: chex.Array,
    epsilon: chex.Array,
    key: chex.PRNGKey,
) -> environment.Episode:
    """Plays B anchors under the table log_policy [S, A], exploring with probability epsilon []."""
    valid = states.valid_actions(config.bins, jnp.arange(config.bins.state_count))

    def policy(state: chex.Array, key: chex.PRNGKey) -> tuple[chex.Array, chex.Array]:
        mu = jax.vmap(exploration.behaviour, (0, 0, None))(jnp.exp(log_policy[state]), valid[state], epsilon)
        return jax.vmap(exploration.sample)(jax.random.split(key, state.shape[0]), mu)

    return environment.play(config, edges, problem, policy, key)


def share(
    batch: Batch,
    ranked: Ranked,
    decision: chex.Array,
    penalties: dict[str, chex.Array],
    baseline: chex.Array,
    agreement_weight: float,
    penalty_weight: float,
) -> Shared:
    """The shared reward of hard decisions [B, L], and each agent's advantage by it.

    Args:
        penalties: agent -> [B].
        baseline: [B], the shared value of where each walk began, in units of R.
    """
    tables, score = confusions(batch, decision), shared_score(batch, ranked, decision, agreement_weight)
    credit = shared_reward.credits(tables, batch.belief.planted)

    def advantage(penalty: chex.Array) -> chex.Array:
        mine = shared_reward.agent_reward(score.reward + credit, penalty, penalty_weight)
        # The baseline takes the best next state, so it is optimistic: the batch's mean takes that out.
        return mine - baseline - jnp.mean(mine - baseline)

    return Shared(
        score=score,
        credit=credit,
        penalties={name: jnp.mean(penalty) for name, penalty in penalties.items()},
        **{name: advantage(penalty) for name, penalty in penalties.items()},
    )


def confusions(batch: Batch, decision: chex.Array) -> chex.Array:
    """Each anchor's confusion table [B, Y + 1, Y + 1] of hard decisions [B, L]."""
    return shared_reward.confusions(decision, flat(batch.belief.relation), batch.belief.planted, batch.missed)


def shared_score(
    batch: Batch, ranked: Ranked, decision: chex.Array | None, agreement_weight: float
) -> shared_reward.Score:
    """The shared reward of hard decisions [B, L] and its parts; where none are given, of the ranker's own."""
    votes, consensus = _votes(ranked.members), _votes(jnp.mean(ranked.members, axis=0)[None])[0]
    agreement = shared_reward.agreement(
        votes.reshape(votes.shape[0], -1),
        consensus.reshape(-1),
        flat(batch.candidates.record >= 0).reshape(-1),
    )
    table = jnp.sum(confusions(batch, consensus if decision is None else decision), axis=0)
    return shared_reward.score(table, agreement, agreement_weight)


def _posterior(score: chex.Array, candidates: Candidates) -> chex.Array:
    """Softmax with NULL at 0 over the candidates of this row and those above it: [B, L, Y]."""
    held = jnp.where((candidates.record >= 0)[..., None], score, -jnp.inf)
    rows = jax.nn.logsumexp(held, axis=2)  # [B, M + 1, Y]
    total = jnp.logaddexp(jax.lax.cumlogsumexp(jnp.maximum(rows, -1e30), axis=1), 0.0)
    return flat(jnp.exp(held - total[:, :, None]))


def _votes(score: chex.Array) -> chex.Array:
    """Hard decisions of scores [E, B, L, Y]: the relation with the best score above NULL, [E, B, L] int32."""
    best = jnp.argmax(score, axis=-1)
    stated = jnp.max(score, axis=-1) > 0
    # One candidate an anchor and member: NULL and the others are what it beats.
    first = jax.nn.one_hot(jnp.argmax(jnp.max(score, axis=-1), axis=-1), score.shape[2], dtype=bool)
    return jnp.where(stated & first, best + 1, UNRELATED).astype(jnp.int32)
