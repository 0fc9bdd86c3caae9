"""The whole loop at its smallest: resume, gold, replicas, and who may move whom."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import (
    answer,
    checkpoints,
    configuration,
    learner,
    learner_state,
    play,
    prepare,
    replicas,
    settings,
    stages,
    train,
)
from aco_jax import desk as desks
from aco_jax.agents import actor, null_shift
from aco_jax.data import catalogue, listing, records
from aco_jax.ops import states
from aco_jax.settings import TrainConfig

SAME = records.SAME


@pytest.fixture(scope="module")
def finished(patient: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    _, desk = train.train(patient, configuration.open_run(patient, workdir), workdir)
    answer.finish(workdir, desk)
    return workdir


def final_state(workdir: Path, config: TrainConfig, dataset: records.Dataset) -> train.Run:
    desk = train.open_desk(config, dataset, workdir)
    agents = settings.learner_config(config, dataset, desk.tokenizer)
    found = checkpoints.restore(workdir / "checkpoints", train.start(config, agents, desk))
    assert found is not None
    return found[1]


def as_arrays(tree: chex.ArrayTree) -> chex.ArrayTree:
    def plain(x: chex.Array) -> np.ndarray:
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    return jax.tree.map(plain, tree)


@pytest.mark.slow
def test_stopping_and_going_on_without_gold_gives_the_same_bits(
    shops: Path, patient: TrainConfig, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the supervised round and again after a round of the loop, with the gold files gone."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in shops.glob("*.csv"):
        if path.stem not in ("matches", "valid", "train", "test"):
            (bare / path.name).write_bytes(path.read_bytes())
    config, dataset = patient, records.read_folder(bare, relations=SAME)
    whole = records.read_folder(shops, relations=SAME)
    assert dataset.fingerprint == whole.fingerprint
    save, workdir = checkpoints.save, tmp_path / "stopped"
    workdir.mkdir()

    def save_and_stop(folder: Path, step: int, *rest: object, last: int) -> None:
        save(folder, step, *rest)
        if step == last:
            raise KeyboardInterrupt

    for last in (1, 2):
        monkeypatch.setattr(checkpoints, "save", partial(save_and_stop, last=last))
        with pytest.raises(KeyboardInterrupt):
            train.train(config, dataset, workdir)
    monkeypatch.setattr(checkpoints, "save", save)
    train.train(config, dataset, workdir)
    ours, theirs = (final_state(folder, config, whole) for folder in (finished, workdir))
    chex.assert_trees_all_equal(as_arrays(ours), as_arrays(theirs))
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (finished, workdir)
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_finished_run_leaves_its_files(shops: Path, finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert {"fingerprint", "versions", "seconds", "tokens", "counts", "columns", "label_free"} <= set(summary)
    assert summary["seconds"]["compilation"] > 0
    assert summary["reward_model"]["preferences"] > 0
    assert {"probes", "length", "calibration"} < set(summary["reward_model"])
    expected = summary["label_free"]["catalogue"]
    assert 0 <= expected["f1_low"] < expected["f1_high"] <= 1
    with np.load(finished / "judged.npz") as kept:
        assert kept["committee"].shape == (2, len(kept["pair"]))  # four members, two folds
        assert not np.array_equal(*kept["committee"])
    rows = answer.relate(finished, records.read_folder(shops, relations=SAME))
    assert len(rows) == summary["counts"]["pairs stated"]
    for *_, relation, probability in rows:
        assert relation == "same"
        assert 0.5 < probability <= 1


@pytest.mark.slow
def test_pairs_asked_for_are_answered_each_in_order(shops: Path, finished: Path) -> None:
    dataset = records.read_folder(shops, relations=SAME)
    left, right = np.arange(3), int(dataset.offsets[1]) + np.arange(3)
    rows = answer.relate(finished, dataset, records.Pairs(left, right, None))
    assert [(row[0], row[1]) for row in rows] == [dataset.key(int(record)) for record in left]
    assert all(row[4] in ("same", "unrelated") and 0 <= row[5] <= 1 for row in rows)


@dataclasses.dataclass(frozen=True)
class Parts:
    config: TrainConfig
    agents: learner_state.Config
    state: learner_state.State
    material: play.Batch
    tables: learner.Tables


@pytest.fixture(scope="module")
def parts(shops: Path, tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Four replicas before their first round, and what they are to play."""
    return make_parts(tiny, shops, tmp_path_factory.mktemp("desk"), replicas=4)


def make_parts(tiny: TrainConfig, shops: Path, folder: Path, **changed: int) -> Parts:
    config = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, **changed))
    dataset = records.read_folder(shops, relations=SAME)
    desk = train.open_desk(config, dataset, folder)
    agents = dataclasses.replace(settings.learner_config(config, dataset, desk.tokenizer), warm_up=0)
    run = train.start(config, agents, desk)
    params = train.parameters(run, agents)
    material, _ = prepare.round_material(desk, config, agents, params, run.believed, 0)
    return Parts(config, agents, run.state, material, desks.tables(desk))


def test_replicas_own_disjoint_anchors_and_keys(parts: Parts) -> None:
    rows = [set(np.asarray(parts.material.anchor[replica]).ravel().tolist()) for replica in range(4)]
    assert not any(rows[i] & rows[j] for i in range(4) for j in range(i))
    keys = np.asarray(jax.random.key_data(parts.state.key))
    assert len({tuple(key) for key in keys.tolist()}) == 4


def test_planted_answers_are_known(parts: Parts) -> None:
    """Of a planted anchor one candidate at most is the answer, the copied record; elsewhere there is no more."""
    batch = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[3:]), parts.material)
    partners = (batch.belief.relation == 1).sum(axis=(1, 2))
    assert partners.max() == 1
    assert batch.belief.planted.any()
    assert (batch.belief.weight[batch.belief.planted] == 1).all()
    assert (batch.fold[batch.belief.planted] == -1).all()
    assert (batch.belief.relation[batch.candidates.record < 0] == -1).all()
    assert (batch.missed[~batch.belief.planted] == 0).all()
    # A query is measured by what the records' own words find; without an answer, by whether it finds anything.
    assert (np.abs(batch.lost) <= 1).all()
    assert batch.lost[batch.belief.planted].any()
    assert set(batch.lost[~batch.belief.planted].tolist()) <= {0.0, 1.0}


@pytest.mark.slow
def test_one_and_four_devices_agree_and_nothing_is_traced_twice(parts: Parts) -> None:
    """After one round: integers equal, floats within 1e-5; a second round is the same program."""
    ends = []
    for count in (1, 4):
        mesh = jax.make_mesh(
            (count,), (replicas.AXIS,), devices=jax.devices()[:count], axis_types=(jax.sharding.AxisType.Auto,)
        )
        step, merge = partial(learner.local_step, config=parts.agents), partial(replicas.merge, config=parts.agents)
        advance = replicas.make_round(step, merge, mesh)
        state = replicas.place(jax.tree.map(jnp.copy, parts.state), mesh)
        state, _ = advance(state, parts.material, parts.tables)
        ends.append(as_arrays(state))
        _, metrics = advance(state, parts.material, parts.tables)
        assert all(np.isfinite(value) for value in jax.device_get(metrics).values())
    for ours, theirs in zip(*map(jax.tree.leaves, ends), strict=True):
        if np.issubdtype(ours.dtype, np.integer):
            np.testing.assert_array_equal(ours, theirs)
        else:
            np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-5)
    averaged = jax.tree.leaves(ends[0].averaged)
    assert all((leaf == leaf[:1]).all() for leaf in averaged)
    assert (ends[0].counts.increment == 0).all()


def test_a_merge_takes_means_of_what_is_averaged_and_sums_of_what_was_counted(parts: Parts) -> None:
    """Four replicas that have gone four ways, by NumPy; encoders are shared by base and actor in a later merge."""
    rng = np.random.default_rng(0)

    def apart(x: chex.Array) -> np.ndarray:
        return np.asarray(x) + rng.normal(size=x.shape).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    averaged = jax.tree.map(apart, as_arrays(parts.state.averaged))
    seen = rng.integers(0, 5, parts.state.counts.increment.shape).astype(np.int32)
    counts = dataclasses.replace(parts.state.counts, increment=jnp.asarray(seen))
    agents = dataclasses.replace(parts.agents, share_every=2, share_rate=0.25)
    mesh = replicas.make_mesh(4)
    advance = replicas.make_round(lambda state, *_: (state, {}), partial(replicas.merge, config=agents), mesh)
    state = dataclasses.replace(parts.state, averaged=averaged, counts=counts)
    before = as_arrays(state.counts)
    state = advance(replicas.place(state, mesh), jnp.zeros((4, 1)), jnp.zeros(()))[0]
    mean = jax.tree.map(lambda x: x.mean(axis=0, keepdims=True) if np.issubdtype(x.dtype, np.floating) else x, averaged)
    for ours, theirs in zip(*map(jax.tree.leaves, (as_arrays(state.averaged), mean)), strict=True):
        np.testing.assert_allclose(ours, np.broadcast_to(theirs, ours.shape), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(state.counts.merged, before.merged + seen.sum(axis=0))
    np.testing.assert_array_equal(state.counts.increment, 0)
    again = as_arrays(advance(state, jnp.zeros((4, 1)), jnp.zeros(()))[0].averaged.params)
    forms = learner_state.trees({name: x[0] for name, x in again.items()}, agents)
    old = learner_state.trees({name: x[0] for name, x in as_arrays(mean.params).items()}, agents)
    for name, other in (("base", "actor"), ("actor", "base")):
        for part, tree in forms[name].items():
            expected = old[name][part]
            if part.startswith("encoder"):
                expected = jax.tree.map(lambda a, b: 0.75 * a + 0.25 * b, old[name][part], old[other][part])
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), tree, expected)


def test_a_penalty_changes_its_own_agents_advantage_only(parts: Parts) -> None:
    batch = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), parts.material)
    params = learner_state.trees(jax.tree.map(lambda x: x[0], parts.state.averaged.params), parts.agents)
    ranked = play.rank(params["ranker"], parts.agents.ranker, batch, jax.random.key(0), 0.3)
    decision = jnp.where(batch.candidates.record >= 0, 0, -1).reshape(4, -1)
    none = {name: jnp.zeros(4) for name in ("base", "rewriter", "ranker")}

    def shared(penalties: dict[str, chex.Array]) -> play.Shared:
        return play.share(batch, ranked, decision, penalties, jnp.zeros(4), 0.2, 0.5)

    before = shared(none)
    for name in none:
        after = shared(none | {name: jnp.array([1.0, 0, 0, 0])})
        for other in none:
            same = bool(jnp.all(getattr(before, other) == getattr(after, other)))
            assert same == (other != name)


@pytest.fixture(scope="module")
def step(parts: Parts) -> Callable[..., dict[str, np.ndarray]]:
    """One local step of one replica, from a batch and a seed: how far it moves the parameters of each agent."""
    state = jax.tree.map(lambda x: x[0], parts.state)
    advance = jax.jit(partial(learner.local_step, tables=parts.tables, config=parts.agents))

    def moved(batch: play.Batch, seed: int = 0) -> dict[str, np.ndarray]:
        after, _ = advance(dataclasses.replace(state, key=jax.random.key(seed)), batch)
        before = state.averaged.params
        return {name: np.asarray(x - before[name]) for name, x in after.averaged.params.items()}

    return moved


def test_every_agent_is_moved_and_only_by_what_is_its_own(
    parts: Parts, step: Callable[..., dict[str, np.ndarray]]
) -> None:
    """A penalty of the base moves the base alone, the worth of a reason the actor alone: nothing crosses over."""
    batch = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), parts.material)
    # Texts that both say two words: so short as they are here most have none in common, and no reason to give.
    words = jnp.asarray(parts.agents.actor.model.vocab_size - jnp.array([[2, 1]]), jnp.int32)
    both = jnp.pad(jnp.tile(words, (4, 1)), ((0, 0), (0, batch.text.shape[1] - 2)))
    source = actor.reason_source(parts.agents.actor, jnp.zeros(4, jnp.int32), both, both)
    reason = jnp.zeros_like(batch.reason).at[:, :2].set(words).at[:, 2].set(parts.agents.actor.special.eos)
    batch = dataclasses.replace(batch, reason_source=source, reason=reason)
    plain = step(batch)
    assert all(np.abs(change).max() > 0 for change in plain.values())
    for own, changed in (
        ("base", dataclasses.replace(batch, lost=batch.lost.at[0].add(1.0))),
        ("actor", dataclasses.replace(batch, reason_value=batch.reason_value + jnp.arange(len(batch.reason)))),
    ):
        found = step(changed)
        different = {name for name in found if not np.array_equal(found[name], plain[name])}
        assert different == {own}


@pytest.mark.slow
def test_the_actor_waits_for_the_reward_model(parts: Parts) -> None:
    """Until the warm-up is over everybody else learns; then what was rewarded before is forgotten."""
    batch = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), parts.material)
    config = dataclasses.replace(parts.agents, warm_up=2)
    advance = jax.jit(partial(learner.local_step, tables=parts.tables, config=config))
    state, moved = jax.tree.map(lambda x: x[0], parts.state), []
    for _ in range(3):
        after, _ = advance(state, batch)
        pairs = zip(state.averaged.params.items(), after.averaged.params.values(), strict=True)
        moved.append({name for (name, old), new in pairs if not np.array_equal(old, new)})
        state = after
    assert moved == [set(moved[2]) - {"actor"}] * 2 + [set(learner_state.AGENTS)]
    assert int(state.memory.size) > 0
    several = jax.tree.map(lambda x: x[None], state)
    assert np.asarray(several.averaged.shared_value).any()
    assert not np.asarray(stages.after_warm_up(several, config).averaged.shared_value).any()  # the states have changed
    begun = stages.actor_begins(several, config)
    assert not np.asarray(begun.memory.size).any()
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(begun.averaged.moments["actor"]))
    np.testing.assert_array_equal(begun.counts.increment, several.counts.increment)
    np.testing.assert_array_equal(begun.averaged.params["critic"], several.averaged.params["critic"])


@pytest.mark.slow
def test_targets_of_several_steps_change_the_critic_alone(
    parts: Parts, step: Callable[..., dict[str, np.ndarray]]
) -> None:
    """The replay and the counts hold single steps whatever the targets take."""
    state = jax.tree.map(lambda x: x[0], parts.state)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), parts.material)
    config = dataclasses.replace(parts.agents, n_step=3)
    after, _ = jax.jit(partial(learner.local_step, tables=parts.tables, config=config))(
        dataclasses.replace(state, key=jax.random.key(0)), batch
    )
    plain, before = step(batch), state.averaged.params
    # Another program may round otherwise; what has another target moves by far more.
    apart = {name: np.abs(after.averaged.params[name] - before[name] - plain[name]).max() for name in plain}
    assert {name for name, most in apart.items() if most > 1e-5} == {"critic"}
    held = jax.tree.map(lambda x: x[: int(after.memory.size)], after.memory.items)
    assert int(after.counts.increment.sum()) == int(after.memory.size)
    np.testing.assert_array_equal(
        after.counts.increment[held.s_tm1, held.a_tm1, held.s_t] > 0, np.ones(held.s_tm1.shape, bool)
    )
    assert set(np.unique(held.discount_t).tolist()) <= {0.0, np.float32(config.environment.discount)}


@pytest.mark.slow
def test_hollow_responses_move_the_reward_model_alone(parts: Parts) -> None:
    state = dataclasses.replace(jax.tree.map(lambda x: x[0], parts.state), key=jax.random.key(0))
    batch = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), parts.material)
    assert parts.agents.reward.hollow_weight > 0
    plain = dataclasses.replace(parts.agents, reward=dataclasses.replace(parts.agents.reward, hollow_weight=0.0))
    (taught, metrics), (before, others) = (
        jax.jit(partial(learner.local_step, tables=parts.tables, config=config))(state, batch)
        for config in (parts.agents, plain)
    )
    apart = {name: jnp.abs(x - before.averaged.params[name]).max() for name, x in taught.averaged.params.items()}
    assert {name for name, most in apart.items() if most > 1e-5} == {"reward"}
    assert np.isfinite(metrics["reward/hollow_margin"])
    assert "reward/hollow_margin" not in others


@pytest.mark.slow
def test_the_null_shift_is_learned_from_what_it_led_to_where_there_is_one(parts: Parts) -> None:
    """By default nothing of it is there; its step is the gradient of its own loss, which nobody else has a part in."""
    assert parts.agents.null_shift is None
    assert "null_shift" not in parts.state.averaged.params
    bins = parts.agents.environment.bins
    config = dataclasses.replace(parts.agents, null_shift=null_shift.Config(bins.factor_sizes))
    init = jax.jit(learner_state.init, static_argnums=1)
    state = init(jax.random.key(0), config)
    batch = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), parts.material)
    after, metrics = jax.jit(partial(learner.local_step, tables=parts.tables, config=config))(state, batch)
    found = learner_state.trees(after.averaged.params, config)["null_shift"]
    assert float(metrics["null_shift/noise"]) == pytest.approx(0.5)
    assert float(metrics["null_shift/mean"]) == 0.0
    # Adam's first step is the rate either way, and of a factor that no walk began with it is nothing.
    assert abs(float(found["bias"])) == pytest.approx(config.null_shift.rate, rel=1e-2)
    assert found["kernel"][states.AT_HAND] != 0
    assert found["kernel"][states.ENDED] == 0
    for name, flat in init(jax.random.key(0), parts.agents).averaged.params.items():
        np.testing.assert_allclose(state.averaged.params[name], flat, rtol=1e-6)


@pytest.mark.slow
def test_a_run_with_a_null_shift_trains_and_relates(tiny: TrainConfig, shops: Path, tmp_path: Path) -> None:
    walk = dataclasses.replace(tiny.environment, null_shift_limit=1.0)
    config = dataclasses.replace(tiny, environment=walk)
    dataset = configuration.open_run(config, tmp_path)
    _, desk = train.train(config, dataset, tmp_path)
    rows, _ = answer.finish(tmp_path, desk)
    assert all(0.5 < probability <= 1 for *_, probability in rows)
    metrics = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any("null_shift/mean" in row for row in metrics)


def test_where_nothing_is_believed_the_judge_learns_nothing(tiny: TrainConfig, shops: Path, tmp_path: Path) -> None:
    dataset = records.read_folder(shops, relations=SAME)
    desk = train.open_desk(tiny, dataset, tmp_path)
    agents = settings.learner_config(tiny, dataset, desk.tokenizer)
    run = train.start(tiny, agents, desk)
    nobody = dataclasses.replace(run.believed, weight=np.zeros_like(run.believed.weight))
    mesh = replicas.make_mesh(tiny.train.replicas)
    after, _ = train.believe(tiny, agents, desk, mesh, dataclasses.replace(run, believed=nobody))
    assert not np.any(after.believed.weight)
    assert not np.any(after.logits)


@pytest.mark.slow
def test_a_run_without_rewrites_learns_what_is_left(tiny: TrainConfig, shops: Path, tmp_path: Path) -> None:
    parts = make_parts(tiny, shops, tmp_path, replicas=1, rewrites=0)
    state, batch = jax.tree.map(lambda x: x[0], parts.state), jax.tree.map(lambda x: x[0, 0], parts.material)
    # Of planted anchors actor and critic learn, of the others the ranker.
    planted = jnp.arange(len(batch.anchor)) % 2 > 0
    belief = dataclasses.replace(batch.belief, planted=planted, weight=jnp.ones(planted.shape))
    batch = dataclasses.replace(batch, belief=belief, fold=jnp.where(planted, -1, 0))
    after, metrics = jax.jit(partial(learner.local_step, tables=parts.tables, config=parts.agents))(state, batch)
    assert all(np.isfinite(value) for value in jax.device_get(metrics).values())
    moved = {name for name, x in after.averaged.params.items() if not np.array_equal(x, state.averaged.params[name])}
    assert moved == set(after.averaged.params) - {"rewriter"}


def test_the_shared_reward_reaches_every_agent_that_has_a_share(
    parts: Parts, step: Callable[..., dict[str, np.ndarray]]
) -> None:
    """Without planted truth there is no shared reward: base, rewriter, ranker and critic then learn otherwise."""
    batch = jax.tree.map(lambda x: jnp.asarray(x[0, 0]), parts.material)
    # Whatever is stated of the first two anchors is right, of the others wrong.
    right = jnp.arange(len(batch.anchor)) < 2
    relation = jnp.where(batch.candidates.record >= 0, right[:, None, None].astype(jnp.int32), -1)
    none, all_ = (
        dataclasses.replace(batch, belief=dataclasses.replace(batch.belief, relation=relation, planted=known))
        for known in (jnp.zeros(right.shape, bool), jnp.ones(right.shape, bool))
    )
    different: set[str] = set()
    for seed in range(8):  # in some of these short walks nothing is stated, and there is nothing to reward
        without, with_ = step(none, seed), step(all_, seed)
        different |= {name for name in without if not np.array_equal(without[name], with_[name])}
    assert different == {"base", "rewriter", "ranker", "critic", "actor"}


@pytest.mark.slow
def test_other_tables_are_related_with_what_was_learned(finished: Path, tmp_path: Path) -> None:
    """More records, other ids: the judge answers, every member of it, and nothing is trained."""
    catalogue.generate(1, shops=2, size=30, difficulty=0.2).write(tmp_path)
    other = records.read_folder(tmp_path, relations=SAME)
    rows = answer.relate(finished, other)
    assert rows
    assert all((row[0], row[1]) in other.index and (row[2], row[3]) in other.index for row in rows)


def test_other_tables_are_seen_by_the_standard_of_the_runs_own(tiny: TrainConfig, shops: Path, tmp_path: Path) -> None:
    """One record a table is its own mean: by that its evidence would say nothing."""
    whole = records.read_folder(shops, relations=records.SAME)
    own = train.open_desk(tiny, whole, tmp_path)
    assert train.open_desk(tiny, whole, tmp_path).problem.mean.tolist() == own.problem.mean.tolist()
    left, right = (int(record) for record in own.problem.pair[own.problem.facts[:, 0].argmax()])
    one = [
        dataclasses.replace(table, ids=table.ids[at : at + 1], cells=table.cells[at : at + 1])
        for table, at in zip(whole.tables, (left, right - int(whole.offsets[1])), strict=True)
    ]
    other = train.open_desk(tiny, dataclasses.replace(whole, tables=tuple(one)), tmp_path)
    np.testing.assert_array_equal(other.problem.mean, own.problem.mean)
    np.testing.assert_array_equal(other.problem.std, own.problem.std)
    # What never varied there says nothing here.
    still = listing.Standard(own.problem.mean - 1, np.full_like(own.problem.std, listing.LEAST_STD))
    assert not listing.everything(listing.standardised(own.problem, still)).evidence[..., own.problem.std > 0.01].any()
    seen = listing.everything(other.problem).evidence[:, 0, 0]
    assert np.abs(seen).max() > 0.5
    (tmp_path / train.STANDARD).write_text("{}")
    with pytest.raises(records.InputError, match=r"evidence\.json: .*expected mean and deviation of each item"):
        train.open_desk(tiny, whole, tmp_path)
