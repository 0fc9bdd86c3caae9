"""Walks the lists with a trained actor, greedily, and computes what it asks for where it asks for it.

Before that the actor shows on planted anchors that it decides no worse than the policy it began as (`trial`).

Lists that the evidence settles are not walked: a language model has nothing to add there that is worth its price. In a
wave each of the others goes on until it ends or wants what is not there: a reading, or the rewriter's rows. What is
wanted is then computed for those lists alone, and the next wave has only them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from aco_jax import desk as desks
from aco_jax import environment, inquiry, learner_state, play, prepare, progress, replicas, supervision
from aco_jax import train as training
from aco_jax.agents import null_shift, reward
from aco_jax.ops import states
from aco_jax.settings import TrainConfig
from aco_jax.types import Params

SETTLED = 0.05  # a list is settled whose likeliest candidate is this near to 0 or 1
_NOTHING, _READING, _ROWS = 0, 1, 2  # what a list waits for


@dataclass(frozen=True)
class Walked:
    """What became of n lists."""

    lists: np.ndarray  # [n] int32
    record: np.ndarray  # [n, L] int32
    decision: np.ndarray  # [n, L] int32
    logit: np.ndarray  # [n, L] float32, with the readings that the actor asked for
    revealed: np.ndarray  # [n, L] bool
    tokens: int  # read


@dataclass(frozen=True)
class Trial:
    """The shared reward of the trained actor and of the fixed policy on planted anchors, and who is to walk."""

    actor: float
    fixed: float
    choice: np.ndarray  # [S] int32, an action for each state

    @property
    def trusted(self) -> bool:
        return self.actor >= self.fixed


def walk(
    config: TrainConfig,
    agents: learner_state.Config,
    desk: desks.Desk,
    run: training.Run,
    choice: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    shifting: bool = True,
) -> Walked:
    """Lets the policy choice [S] walk the lists `rows` to their end, every list that is open unless they are given.

    Args:
        shifting: whether the actor shifts the NULL logits, where it has learned to.
    """
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, temperature=0.0))
    if rows is None:
        rows = unsettled(desk.problem.place, np.asarray(run.believed.posterior), config.train.walks)
    lists = _Lists(config, agents, desk, run, rows, choice, shifting)
    going = np.arange(len(lists.rows))
    with progress.bar(len(going), "relating", unit="list") as bar:
        while len(going):
            parts = [lists.advance(rows) for rows in lists.blocks(going)]
            wants, where = (np.concatenate(part) for part in zip(*parts, strict=True))
            lists.read(going[wants == _READING], where[wants == _READING])
            lists.rewrite(going[wants == _ROWS])
            bar.update(int((wants == _NOTHING).sum()))
            going = going[wants != _NOTHING]
    return lists.walked()


def trial(config: TrainConfig, agents: learner_state.Config, desk: desks.Desk, run: training.Run) -> Trial:
    """The actor beside the fixed policy it began as, on the planted anchors of a round that was not played.

    Their answers are planted, so no label is needed to see an actor that has learned the wrong thing: then the fixed
    policy is to walk.
    """
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, temperature=0.0))
    params, number = training.parameters(run, agents, desk.trunk), int(replicas.first(run.state.merges))
    batch = prepare.next_planted(desk, config, agents, params, run.believed, number)
    scale, edges = replicas.first((run.state.averaged.scale, run.state.edges))
    count = len(batch.anchor)
    ready, pending = jnp.ones(batch.candidates.record.shape, bool), jnp.zeros(count, bool)
    value, spread = rewards(params, scale, agents, jnp.asarray(desk.texts), batch, jnp.zeros(count))
    given = (params, agents, batch, value, spread, jnp.zeros(count), ready, pending)
    problem, _ = pose(*given)
    shifted = problem
    if agents.null_shift is not None:
        mean = _mean_shift(params["null_shift"], agents.null_shift, agents.environment, edges, problem)[1]
        shifted, _ = pose(*given, mean)
    table = learner_state.policy_table(params["actor"], agents)
    choices = [table, jnp.asarray(states.fixed_policy(agents.environment.bins))]
    actor, fixed = (np.asarray(jnp.argmax(policy, axis=1), np.int32) for policy in choices)

    def reward(choice: np.ndarray, problem: environment.Problem) -> float:
        final = environment.start(play.flat(batch.candidates.record >= 0), pending)
        final, *_ = _walk(agents.environment, edges, problem, jnp.asarray(choice), final)
        return float(_shared_reward(params["ranker"], agents, batch, final.decision))

    ours, theirs = reward(actor, shifted), reward(fixed, problem)
    return Trial(ours, theirs, actor if ours >= theirs else fixed)


def unsettled(place: np.ndarray, posterior: np.ndarray, most: int) -> np.ndarray:
    """The lists [n] of which the evidence does not say by itself whether there is a partner, in their order.

    Args:
        place: [lists, K], the numbers of the candidates' pairs, -1 where empty.
        posterior: [P] of the pairs.
        most: lists that may be walked; where more are open, those that are most so.
    """
    likeliest = np.where(place >= 0, posterior[place], 0.0).max(axis=1)
    settled = np.abs(likeliest - 0.5)
    first = np.argsort(settled, kind="stable")[:most]
    return np.sort(first[settled[first] < 0.5 - SETTLED]).astype(np.int32)


class _Lists:
    """The lists `rows` on their way: what is known of each, and where the actor stands in it.

    Its methods number the lists by their places in `rows`.
    """

    def __init__(
        self,
        config: TrainConfig,
        agents: learner_state.Config,
        desk: desks.Desk,
        run: training.Run,
        rows: np.ndarray,
        choice: np.ndarray,
        shifting: bool = True,
    ) -> None:
        self.rows, self._size = rows, inquiry.at_once(agents.reward.model)
        self._team = inquiry.staff(desk, config, agents, training.parameters(run, agents, desk.trunk), rows)
        self._believed, self._texts = run.believed, jnp.asarray(desk.texts)
        self._scale, self._edges = replicas.first((run.state.averaged.scale, run.state.edges))
        self._greedy = jnp.asarray(choice, jnp.int32)
        prior = np.asarray(run.believed.prior)[desk.problem.kind[rows]]
        self._shift = np.log(prior / (1 - prior)).astype(np.float32)
        parts = [self._ask(block) for block in self.blocks(rows)]
        self._asked, self._batch = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        record = self._batch.candidates.record
        self._ready, self._pending = np.zeros(record.shape, bool), np.full(len(record), config.train.rewrites > 0)
        flat = _flat(record)
        self._final = jax.tree.map(np.array, environment.start(jnp.asarray(flat >= 0), jnp.asarray(self._pending)))
        self._logit = np.zeros(flat.shape, np.float32)
        self._own = np.full(len(record), np.nan, np.float32)  # readings of the anchors themselves, once there are any
        # A reading tells the reward model nothing: it is asked again only where candidates have come.
        self._value, self._spread = (np.zeros((*flat.shape, agents.reward.relations), np.float32) for _ in range(2))
        blocks = self.blocks(np.arange(len(rows))) if len(rows) else []
        for block in blocks:
            self._reward(block)
        self._null_shift: np.ndarray | None = None
        if shifting and agents.null_shift is not None and blocks:
            self._null_shift = np.concatenate([self._mean_shift(agents.null_shift, block) for block in blocks])

    def blocks(self, rows: np.ndarray) -> list[np.ndarray]:
        """What is walked at once; at least one block, and that of nothing is empty."""
        return [rows[start : start + self._size] for start in range(0, max(len(rows), 1), self._size)]

    def advance(self, lists: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Walks `lists` as far as they go: what each wants then, and of which candidate in [0, L)."""
        full = np.resize(lists, self._size)  # a short block is filled up, so that nothing is compiled twice
        problem, logit = self._pose(full)
        final = jax.tree.map(lambda x: x[full], self._final)
        final, *wanted = _walk(self._team.agents.environment, self._edges, problem, self._greedy, final)
        self._final = jax.tree.map(partial(_put, lists), self._final, final)
        self._logit = _put(lists, self._logit, logit)
        wants, where = (np.asarray(x)[: len(lists)] for x in wanted)
        return wants, where

    def read(self, lists: np.ndarray, where: np.ndarray) -> None:
        """Computes the readings of candidates `where` of `lists`."""
        if len(lists) == 0:
            return
        candidates = self._batch.candidates
        row, slot = np.divmod(where, candidates.record.shape[2])
        batch, numbers = jax.tree.map(lambda x: x[lists], self._batch), np.arange(len(lists))
        record, team = candidates.record[lists, row, slot], self._team
        fresh = lists[np.isnan(self._own[lists])]
        if len(fresh):
            self._own[fresh] = inquiry.own_readings(team, self._batch, fresh)
        company = supervision.company(team.desk.problem, self._believed, self.rows[lists])
        found = inquiry.readings(team, batch, company, numbers, record, self._own[lists])
        candidates.reading[lists, row, slot] = found
        self._ready[lists, row, slot] = True

    def rewrite(self, lists: np.ndarray) -> None:
        """Has the queries of `lists` rewritten, and looks at what the subqueries find."""
        if len(lists) == 0:
            return
        for block in self.blocks(lists):
            full = np.resize(block, self._size)
            rows, asked = self.rows[full], jax.tree.map(lambda x, at=full: x[at], self._asked)
            anchors = desks.standing(self._team.desk, rows)
            split = inquiry.split(self._team, anchors, asked, jax.random.key(0))
            found, _ = prepare.answers(self._team, self._believed, anchors, asked, split)
            # Row 0 stays as it was, and with it what was read of it.
            read = dataclasses.replace(found.candidates, reading=self._batch.candidates.reading[full])
            found = dataclasses.replace(found, candidates=read)
            self._batch = jax.tree.map(partial(_put, block), self._batch, self._folded(found, rows))
            self._pending[block] = False
            self._reward(block)

    def walked(self) -> Walked:
        final, flat = self._final, _flat(self._batch.candidates.record)
        return Walked(self.rows, flat, final.decision, self._logit, final.revealed, int(final.tokens.sum()))

    def _reward(self, lists: np.ndarray) -> None:
        """Asks the reward model about `lists`, of one block."""
        full, team = np.resize(lists, self._size), self._team
        batch, shift = jax.tree.map(lambda x: x[full], (self._batch, self._shift))
        found = rewards(team.params, self._scale, team.agents, self._texts, batch, jnp.asarray(shift))
        self._value, self._spread = (
            _put(lists, old, new) for old, new in zip((self._value, self._spread), found, strict=True)
        )

    def _pose(self, full: np.ndarray) -> tuple[environment.Problem, jax.Array]:
        batch, value, spread, shift, ready, pending, null_shift = jax.tree.map(
            lambda x: x[full],
            (self._batch, self._value, self._spread, self._shift, self._ready, self._pending, self._null_shift),
        )
        team = self._team
        return pose(team.params, team.agents, batch, value, spread, jnp.asarray(shift), ready, pending, null_shift)

    def _mean_shift(self, config: null_shift.Config, lists: np.ndarray) -> np.ndarray:
        """What the actor shifts the NULL logits of `lists` by, before anything is read or rewritten, without noise."""
        problem, _ = self._pose(np.resize(lists, self._size))
        params, process = self._team.params["null_shift"], self._team.agents.environment
        return np.asarray(_mean_shift(params, config, process, self._edges, problem)[1])[: len(lists)]

    def _ask(self, rows: np.ndarray) -> tuple[inquiry.Asked, play.Batch]:
        full = np.resize(rows, self._size)
        anchors = desks.standing(self._team.desk, full)
        asked = inquiry.ask(self._team, anchors, jax.random.key(0))
        batch, _ = prepare.answers(self._team, self._believed, anchors, asked, inquiry.unsplit(self._team, asked))
        return jax.tree.map(lambda x: np.array(x[: len(rows)]), (asked, self._folded(batch, full)))

    def _folded(self, batch: play.Batch, rows: np.ndarray) -> play.Batch:
        return dataclasses.replace(batch, fold=np.asarray(self._believed.fold)[rows])


def _flat(record: np.ndarray) -> np.ndarray:
    """[n, M + 1, K] -> [n, L], for no lists, too."""
    return record.reshape(len(record), math.prod(record.shape[1:]))


def _put(rows: np.ndarray, old: np.ndarray, new: jax.Array | np.ndarray) -> np.ndarray:
    """`old` with the first of `new` at `rows`."""
    old[rows] = np.asarray(new)[: len(rows)]
    return old


@partial(jax.jit, static_argnames="agents")
def pose(
    params: dict[str, Params],
    agents: learner_state.Config,
    batch: play.Batch,
    value: jax.Array,
    spread: jax.Array,
    shift: jax.Array,
    ready: jax.Array,
    pending: jax.Array,
    null_shift: jax.Array | None = None,
) -> tuple[environment.Problem, jax.Array]:
    """The walks of n lists, and the logits [n, L] with the readings there are, before any shift.

    Args:
        value: [n, L, Y] of `rewards`, and spread.
        shift: [n] of all logits, where the share with a partner is not a half.
        ready: [n, M + 1, K] bool, the readings there are.
        pending: [n] bool, whether the rows below the first are still to be made.
        null_shift: [n], the actor's continuous action.
    """
    shift = shift[:, None, None, None]
    ranked = play.rank(params["ranker"], agents.ranker, batch, jax.random.key(0), 0.0, shift)
    problem = play.problems(batch, ranked, value, spread)
    problem = dataclasses.replace(problem, ready=play.flat(ready), pending=pending)
    if null_shift is not None:
        problem = jax.vmap(environment.shift_null)(problem, null_shift)
    return problem, ranked.score[..., 0] - shift[:, 0, 0]


@partial(jax.jit, static_argnames="agents")
def _shared_reward(params: Params, agents: learner_state.Config, batch: play.Batch, decision: jax.Array) -> jax.Array:
    """The shared reward of decisions [n, L] on planted anchors, beside what the ranker's members say."""
    ranked = play.rank(params, agents.ranker, batch, jax.random.key(0), 0.0)
    return play.shared_score(batch, ranked, decision, agents.agreement_weight).reward


_mean_shift = jax.jit(play.mean_shift, static_argnums=(1, 2))


@partial(jax.jit, static_argnames="agents")
def rewards(
    params: dict[str, Params],
    scale: jax.Array,
    agents: learner_state.Config,
    texts: jax.Array,
    batch: play.Batch,
    shift: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Reward and spread of stating each relation for each candidate of n lists, [n, L, Y] each.

    Args:
        shift: [n], as `pose` has it.
    """
    ranked = play.rank(params["ranker"], agents.ranker, batch, jax.random.key(0), 0.0, shift[:, None, None, None])
    few, place = play.likeliest(batch, ranked)
    every = play.all_preferences(agents.base.special, few, texts, agents.reward.relations)
    score = partial(reward.score, params["reward"], agents.reward, scale=scale, key=None)
    value, spread = jax.vmap(lambda one: score(batch=one))(every)
    count = ranked.blind.shape[1]
    return play.spread_out(value, place, count), play.spread_out(spread, place, count)


@partial(jax.jit, static_argnames="config")
def _walk(
    config: environment.Config,
    edges: states.Edges,
    problem: environment.Problem,
    greedy: jax.Array,
    final: environment.EnvState,
) -> tuple[environment.EnvState, jax.Array, jax.Array]:
    """Walks on from `final`: where each list stands, what it waits for, and the candidate at hand."""

    def policy(state: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        del key
        return greedy[state], jnp.ones(state.shape)

    episode = environment.play(config, edges, problem, policy, jax.random.key(0), final)
    place, _ = jax.vmap(environment.current)(problem, episode.final)
    seen = jax.vmap(partial(environment.observe, config, edges))(problem, episode.final)
    over = jax.vmap(partial(environment.over, config))(episode.final)
    # A walk that is not over rests only where it waits.
    wanted = jnp.where(greedy[seen.state] == config.actions[1], _READING, _ROWS)
    return episode.final, jnp.where(over, _NOTHING, wanted), place
