"""The base: guardrails obeyed, likelihoods that add up, gradients that go where they should."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aco_jax.agents import base
from aco_jax.data.tokens import Special
from aco_jax.models import transformer

SPECIAL = Special.at(0)
TEXT = SPECIAL.count  # the first text token
SIZE = TEXT + 20
MODEL = transformer.Config(
    vocab_size=SIZE, width=16, heads=2, encoder_layers=1, decoder_layers=1, mlp_width=32, max_length=24
)
CONFIG = base.Config(model=MODEL, special=SPECIAL, tables=3, columns=2, query_length=14, guard_columns=2)
S, T = SPECIAL, TEXT

log_prob_of = jax.jit(transformer.sequence_log_prob, static_argnums=1)
query_log_prob = jax.jit(base.query_log_prob, static_argnums=1)
generate_queries, embed, loss_of, likelihood = (
    jax.jit(f, static_argnums=1) for f in (base.generate_queries, base.embed, base.loss, base.likelihood)
)


def source(relation=1, table=0):
    """Column 0 says T, T + 1, T + 2, column 1 says T + 2, T + 3."""
    row = [S.table(table), S.column(0), T, T + 1, T + 2, S.column(1), T + 2, T + 3]
    return [S.ask, S.relation(relation), *row, 0, 0]


SOURCES = jnp.array([source(), source(relation=0, table=2)] * 8)


@pytest.fixture(scope="module")
def params():
    fresh = base.init(jax.random.key(0), CONFIG)
    leaves, tree = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        tree, [leaf + 0.2 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="module")
def asked(params):
    return generate_queries(params, CONFIG, SOURCES, jax.random.key(2), 1.0)


def rows(written):
    """(table, level, columns, words) of each query, by plain Python."""
    found = []
    for row in np.asarray(written).tolist():
        sep = row.index(S.sep)
        words = [token for token in row[sep + 1 :] if token and token != S.eos]
        found.append((row[0], row[1], row[2:sep], words))
    return found


def test_what_is_written_obeys_the_grammar(asked):
    _, written = asked
    for anchor, (table, level, columns, words) in zip(np.asarray(SOURCES), rows(written), strict=True):
        others = {S.table(i) for i in range(3)} - {int(anchor[2])}
        assert table in others
        assert 0 <= level - S.first_level < 8
        assert 1 <= len(columns) <= 2
        assert set(columns) <= {S.column(0), S.column(1)}
        assert all(word >= TEXT for word in words)
        shut = {S.column(0): {T, T + 1}, S.column(1): {T + 3}}
        for column in set(shut) - set(columns):
            assert not shut[column] & set(words)


def test_guardrails_are_decoded_into_fields(asked):
    query, written = asked
    for i, (table, level, columns, words) in enumerate(rows(written)):
        assert query.table[i] == table - S.first_table
        assert query.least_relevance[i] == (level - S.first_level) / 8
        np.testing.assert_array_equal(query.columns[i], [S.column(c) in columns for c in range(2)])
        tokens = np.asarray(query.tokens[i])
        np.testing.assert_array_equal(tokens[: len(words)], words)
        np.testing.assert_array_equal(tokens[len(words) :], 0)
    np.testing.assert_array_equal(query.relation, [1, 0] * 8)


def test_log_prob_is_that_of_the_held_model(params, asked):
    query, written = asked
    found = query_log_prob(params, CONFIG, SOURCES, written)
    np.testing.assert_allclose(query.log_prob, found, atol=1e-4)


def test_a_given_table_is_searched_and_costs_no_probability(params):
    tables = jnp.arange(16) % 3
    query, written = generate_queries(params, CONFIG, SOURCES, jax.random.key(3), 1.0, tables)
    np.testing.assert_array_equal(query.table, tables)
    found = query_log_prob(params, CONFIG, SOURCES, written, tables)
    np.testing.assert_allclose(query.log_prob, found, atol=1e-4)


def test_policy_loss_moves_probability_by_the_sign_of_the_advantage(params, asked):
    _, written = asked
    advantage = jnp.where(jnp.arange(16) % 2 == 0, 1.0, -1.0)
    gradient = jax.jit(jax.grad(lambda p, a: base.policy_loss(p, CONFIG, SOURCES, written, a)[0]))
    moved = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient(params, advantage))
    change = [query_log_prob(p, CONFIG, SOURCES, written) for p in (moved, params)]
    assert jnp.sum((change[0] - change[1]) * advantage) > 0
    zero = gradient(params, jnp.zeros(16))
    assert all(np.abs(leaf).max() == 0 for leaf in jax.tree.leaves(zero))


def test_loss_reports_each_kind_as_its_own_mean(params):
    targets = jnp.array([[T, T + 1, S.eos, 0], [T + 2, S.eos, 0, 0], [T, S.eos, 0, 0]])
    kinds = jnp.array([0, 1, 0])
    batch = base.SftBatch(SOURCES[:3], targets, kinds)
    value, metrics = loss_of(params, CONFIG, batch)
    log_prob, _ = log_prob_of(params, MODEL, SOURCES[:3], targets)
    np.testing.assert_allclose(metrics["denoise"], -(log_prob[0].sum() + log_prob[2].sum()) / 5, rtol=1e-5)
    np.testing.assert_allclose(metrics["ask"], -log_prob[1].sum() / 2, rtol=1e-5)
    assert metrics["rewrite"] == 0
    taught = metrics["denoise"] + metrics["ask"] + CONFIG.contrast_weight * metrics["contrast"]
    np.testing.assert_allclose(value, taught, rtol=1e-6)


def test_the_contrast_is_infonce_both_ways_without_what_asks_for_the_unrelated(params):
    sources = SOURCES[:3].at[1, 1].set(S.relation(0))
    targets = jnp.array([[T, T + 1, S.eos], [T + 2, S.eos, 0], [T + 3, S.eos, 0]])
    _, metrics = loss_of(params, CONFIG, base.SftBatch(sources, targets, jnp.zeros(3, jnp.int32)))
    ours, theirs = (np.asarray(embed(params, CONFIG, x), np.float64)[[0, 2]] for x in (sources, targets))
    scores = ours @ theirs.T / CONFIG.contrast_temperature
    one = [np.log(np.exp(row).sum()) - row[i] for s in (scores, scores.T) for i, row in enumerate(s)]
    np.testing.assert_allclose(metrics["contrast"], np.mean(one), rtol=1e-4)


def test_likelihood_is_the_chain_rule_over_rotations(params):
    lists = [[T, T + 1], [T + 2], [T + 1, T + 3, T]]

    def padded(tokens, length):
        return jnp.array([[*tokens, *[0] * (length - len(tokens))]])

    def log_p(known, target):
        given, wanted = padded([S.denoise, *known], 8), padded([*target, S.eos], 5)
        return float(log_prob_of(params, MODEL, given, wanted)[0].sum())

    for m in (2, 3):
        gains = []
        for first in range(m):
            order = [lists[(first + step) % m] for step in range(m)]
            known = [[token for record in order[:k] for token in record] for k in range(m)]
            gain = sum(log_p(known[k], order[k]) - log_p([], order[k]) for k in range(1, m))
            gains.append(gain / sum(len(target) + 1 for target in order[1:]))
        found = likelihood(params, CONFIG, tuple(padded(tokens, 3) for tokens in lists[:m]))
        np.testing.assert_allclose(found, [np.mean(gains)], atol=1e-5)


def test_likelihood_of_two_is_symmetric_and_one_is_refused(params):
    a, b = jnp.array([[T, T + 1, 0]]), jnp.array([[T + 2, 0, 0]])
    np.testing.assert_allclose(likelihood(params, CONFIG, (a, b)), likelihood(params, CONFIG, (b, a)), atol=1e-6)
    with pytest.raises(ValueError, match="1 record, expected at least two"):
        base.likelihood(params, CONFIG, (a,))


def test_learning_to_restore_makes_a_copy_likelier_than_a_stranger():
    params = base.init(jax.random.key(0), CONFIG)
    optimiser = optax.adam(1e-2)

    def draw(key):
        return jax.random.randint(key, (16, 5), TEXT, SIZE)

    def loss(params, key):
        record = draw(key)
        begin, end = (jnp.full((16, 1), token) for token in (S.denoise, S.eos))
        hidden = jax.random.bernoulli(key, 0.2, (16, 1))
        sources = jnp.concatenate([begin, jnp.where(hidden, 0, record)], axis=1)
        targets = jnp.concatenate([record, end], axis=1)
        return base.loss(params, CONFIG, base.SftBatch(sources, targets, jnp.zeros(16, jnp.int32)))[0]

    def train(carry, key):
        params, moments = carry
        updates, moments = optimiser.update(jax.grad(loss)(params, key), moments)
        return (optax.apply_updates(params, updates), moments), None

    keys = jax.random.split(jax.random.key(1), 80)
    (params, _), _ = jax.jit(lambda c: jax.lax.scan(train, c, keys))((params, optimiser.init(params)))
    a, b = draw(jax.random.key(2)), draw(jax.random.key(3))
    same, other = (likelihood(params, CONFIG, (a, x)) for x in (a, b))
    assert same.mean() > 1.0
    assert same.min() > other.max()
