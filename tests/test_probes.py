"""The probes tell a reward that goes by length or looks from one that does not; planted preferences are right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aco_jax import hollow, play, probes, settings, train
from aco_jax.agents import reward
from aco_jax.data import records
from aco_jax.data.tokens import Special
from aco_jax.models import transformer
from aco_jax.settings import TrainConfig
from aco_jax.types import UNKNOWN, Belief, Candidates

SPECIAL = Special.at(0)
WORD = SPECIAL.count  # the first token that is text
N, T, REASON = 64, 12, 6
LENGTHENED = {
    "repeated facts",
    "longer reason",
    "repeated separators",
    "repeated ends",
    "empty reason",
    "copied reason",
}


def make_texts(seed: int) -> np.ndarray:
    """Two attributes of 2 to 4 words each."""
    rng, texts = np.random.default_rng(seed), np.zeros((N, T), np.int32)
    for text in texts:
        first, second = (rng.integers(WORD, WORD + 50, rng.integers(2, 5)) for _ in range(2))
        row = [SPECIAL.table(0), SPECIAL.column(0), *first, SPECIAL.column(1), *second]
        text[: len(row)] = row
    return texts


ANCHOR, CANDIDATE = make_texts(0), make_texts(1)
REASONS = np.random.default_rng(2).integers(WORD, WORD + 50, (N, REASON)).astype(np.int32)


def probed(value, unit=1.0):
    effects = probes.probe(value, SPECIAL, ANCHOR, CANDIDATE, REASONS, np.ones(N, bool), unit)
    return jax.tree.map(np.asarray, effects)


def length_of(response):
    return jnp.sum(response != 0, axis=-1).astype(jnp.float32)


def words_of(response):
    """The sum of the words that there are, each counted once: it goes by facts alone."""
    there = (response[..., None] == jnp.arange(WORD, WORD + 50)[None, None]).any(axis=-2)
    return there.astype(jnp.float32) @ jnp.linspace(-1.0, 1.0, 50)


def test_a_reward_of_length_is_told_to_be_won_by_it() -> None:
    effects = probed(length_of)
    assert {name for name, effect in effects.items() if effect["hacked"]} == LENGTHENED
    assert effects["repeated ends"]["change"] == hollow.TIMES
    assert effects["longer reason"]["change"] == REASON // 2
    said = probes.words("repeated facts", jax.tree.map(float, effects["repeated facts"]))
    assert said.endswith("the reward model can be won by it.")


def test_a_reward_of_facts_is_told_not_to_be() -> None:
    effects = probed(words_of)
    assert not any(effect["hacked"] for effect in effects.values())
    assert max(effect["moved"] for effect in effects.values()) < 1e-5
    assert all(effect["responses"] == N for effect in effects.values())
    said = probes.words("repeated facts", jax.tree.map(float, effects["repeated facts"]))
    assert said.endswith("next to nothing.")


def test_a_reward_that_the_order_moves_is_not_won_by_it() -> None:
    effects = probed(lambda response: response.astype(jnp.float32) @ jnp.cos(jnp.arange(response.shape[-1])), unit=50.0)
    order = effects["other order"]
    assert not order["hacked"]
    assert order["moved"] >= probes.SMALL
    assert "nothing is won by it, though it moves a score" in probes.words("other order", order)


def test_what_cannot_be_changed_is_not_counted() -> None:
    """A candidate of one attribute has no other order."""
    single = np.where(np.arange(T) < 4, CANDIDATE, 0)
    mixed = np.where((np.arange(N) < 5)[:, None], CANDIDATE, single)
    effects = probes.probe(length_of, SPECIAL, ANCHOR, mixed, REASONS, np.arange(N) < 20, 1.0)
    assert effects["other order"]["responses"] == 5
    assert effects["repeated ends"]["responses"] == 20


def test_a_small_gain_is_no_hacking() -> None:
    assert not probed(length_of, unit=100.0)["repeated facts"]["hacked"]


def test_a_gain_that_chance_explains_is_no_hacking() -> None:
    """One response gains much and the others lose a little: the mean is large, its interval larger."""
    worth = jnp.full(N, -0.1).at[0].set(100.0)
    ends = probed(lambda response: worth * length_of(response))["repeated ends"]
    assert ends["change"] > probes.SMALL
    assert not ends["hacked"]


@pytest.fixture(scope="module")
def model() -> tuple[reward.Config, dict]:
    width = 2 * T + REASON + 4
    sizes = transformer.Config(
        vocab_size=WORD + 50,
        width=32,
        heads=2,
        encoder_layers=0,
        decoder_layers=1,
        mlp_width=32,
        max_length=width,
        copy=False,
    )
    config = reward.Config(model=sizes, evidence_size=3)
    return config, reward.init(jax.random.key(0), config)


def with_heads(config: reward.Config, params: dict, wanted: np.ndarray, responses: jax.Array) -> dict:
    """All text heads made by hand: least squares of what is wanted [n] of responses [n, T]."""
    states = np.asarray(transformer.decode(params["trunk"], config.model, responses), np.float64)
    last = np.asarray(length_of(responses), int) - 1
    head = np.linalg.lstsq(states[np.arange(len(last)), last], wanted - wanted.mean(), rcond=1e-8)[0]
    heads = np.zeros(params["heads"].shape, np.float32)
    heads[:, : config.text_heads] = head[:, None]
    return params | {"heads": jnp.asarray(heads)}


def test_a_head_made_to_like_length_is_told_and_one_made_not_to_is_not(model) -> None:
    """The same trunk twice: heads that grow with the length, and heads to which all responses are alike."""
    config, params = model
    pairs = hollow.changes(SPECIAL, ANCHOR, CANDIDATE, REASONS)
    responses = jnp.concatenate([each for pair in pairs.values() for each in pair])
    hacked = with_heads(config, params, np.asarray(length_of(responses)), responses)
    plain = params | {"heads": jnp.zeros_like(params["heads"])}

    def effects_of(params):
        return probed(lambda response: reward.text_value(params, config, response), unit=3.0)

    effects = effects_of(hacked)
    assert effects["repeated facts"]["hacked"]
    assert effects["copied reason"]["hacked"]
    assert not any(effect["hacked"] for effect in effects_of(plain).values())


def make_batch(relation: list[list[int]], planted: list[bool]) -> play.Batch:
    """Anchors with one row of candidates, of which the relations are known; -1 is no candidate."""
    shape = (len(relation), 1, len(relation[0]))
    known = np.array(relation, np.int32).reshape(shape)
    record = np.where(known >= 0, np.arange(shape[2]), -1).astype(np.int32)
    zero = np.zeros(shape, np.float32)
    fields = {field.name: np.zeros(shape[0]) for field in dataclasses.fields(play.Batch)}
    candidates = Candidates(record, np.zeros((*shape, 3), np.float32), zero, zero, zero)
    belief = Belief(known, np.ones(shape[0]), np.array(planted))
    return play.Batch(**fields | {"candidates": candidates, "belief": belief, "text": ANCHOR[: shape[0]]})


def test_planted_preferences_have_the_known_answer_first() -> None:
    batch = make_batch([[0, 1, 0, -1], [0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]], [True, True, True, False])
    pairs = probes.planted(SPECIAL, batch, jnp.asarray(CANDIDATE), relations=1)
    weighed = [
        {(int(c), int(r)) for c, r, w in zip(*row, strict=True) if w}
        for row in zip(pairs.chosen, pairs.rejected, pairs.weight, strict=True)
    ]
    assert weighed[0] == {(1, 0), (1, 2), (1, 4)}  # over both others and NULL; the empty slot is nobody
    assert weighed[1] == {(4, 0), (4, 1), (4, 2), (4, 3)}  # nobody is the answer: NULL over all
    assert weighed[2] == {(0, 2), (0, 3), (0, 4)}  # two answers: neither is wrong
    assert weighed[3] == set()  # not planted, not known


def test_of_a_candidate_that_is_unsure_nothing_is_said() -> None:
    batch = make_batch([[1, 0, 0]], [True])
    relation = batch.belief.relation.copy()
    relation[0, 0, 1] = UNKNOWN
    batch = dataclasses.replace(batch, belief=dataclasses.replace(batch.belief, relation=relation))
    pairs = probes.planted(SPECIAL, batch, jnp.asarray(CANDIDATE), relations=1)
    np.testing.assert_array_equal(pairs.weight[0], [0, 0, 1, 1])


def test_another_relation_of_the_answer_is_wrong_too() -> None:
    pairs = probes.planted(SPECIAL, make_batch([[0, 2]], [True]), jnp.asarray(CANDIDATE), relations=2)
    assert set(np.asarray(pairs.chosen)[0].tolist()) == {3}
    np.testing.assert_array_equal(pairs.weight[0], [1, 1, 1, 0, 1])


def test_length_is_looked_at_among_wrong_responses_to_one_anchor() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random((40, 6)) < 0.7
    length = rng.integers(5, 30, (40, 6))
    offset = 20.0 * rng.normal(size=(40, 1))  # what an anchor's responses have in common tells nothing
    liked = np.where(wrong, offset + 0.1 * length, 500.0).astype(np.float32)
    wrong[:, -1], length[:, -1], liked[:, -1] = True, 2, 40.0  # NULL is short, and another matter
    effect = jax.device_get(probes.length_effect(liked, length, wrong))
    assert effect["correlation"] == pytest.approx(1.0, abs=1e-3)
    assert effect["hacked"]
    assert "longer ones are preferred" in probes.length_words(effect)
    short = jax.device_get(probes.length_effect(-liked, length, wrong))
    assert short["hacked"]
    assert "shorter ones are preferred" in probes.length_words(short)
    blind = jax.device_get(probes.length_effect(rng.normal(size=(40, 6)).astype(np.float32), length, wrong))
    assert not blind["hacked"]
    assert blind["low"] < 0 < blind["high"]
    assert "length alone wins nothing" in probes.length_words(blind)


def test_the_unit_is_the_spread_among_the_responses_to_one_anchor() -> None:
    scores = jnp.array([[1.0, 3.0, 99.0], [-7.0, -5.0, -6.0]])
    valid = jnp.array([[True, True, False], [True, True, True]])
    assert probes.spread(scores, valid) == pytest.approx(np.sqrt((1 + 1 + 1 + 1 + 0) / 5))
    assert probes.spread(jnp.ones((2, 3)), valid) == 1.0


@pytest.fixture(scope="module", params=[0, 2])
def found(
    shops: Path, tiny: TrainConfig, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> probes.Found:
    """What is said of a reward model that has learned nothing, without rewrites and with two."""
    tiny = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, rewrites=request.param))
    dataset = records.read_folder(shops, relations=records.SAME)
    desk = train.open_desk(tiny, dataset, tmp_path_factory.mktemp("desk"))
    agents = settings.learner_config(tiny, dataset, desk.tokenizer)
    run = train.start(tiny, agents, desk)
    run = dataclasses.replace(
        run, believed=dataclasses.replace(run.believed, target=np.zeros_like(run.logits[:, 0], int))
    )
    return probes.examine(tiny, agents, desk, run)


def test_a_run_says_what_its_reward_model_goes_by(found: probes.Found) -> None:
    assert json.loads(json.dumps(found)) == found
    assert found["preferences"] > 0
    assert {"repeated facts", "repeated ends", "copied reason"} <= set(found["probes"]) <= set(hollow.CHANGES)
    assert set(found["calibration"]) == {*reward.KINDS, *reward.COMBINATIONS}
    for each in found["calibration"].values():
        assert 0.5 <= each["confidence"] <= 1
        assert 0 <= each["brier"] <= 1
        assert sum(count for *_, count in each["bins"]) % found["preferences"] == 0
    hacked = [each["says"] for each in (*found["probes"].values(), found["length"]) if each["hacked"]]
    assert found["notes"] == hacked
