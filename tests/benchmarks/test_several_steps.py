"""Walks that follow their process, and tables that come to its values whatever number of steps a target takes."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import mdps, several_steps


def test_walks_go_on_where_they_were_until_they_end() -> None:
    mdp = mdps.chain(4)
    items, there = jax.device_get(several_steps.walks(mdp, jax.random.key(0)))
    shape = (several_steps.WALKS, several_steps.LENGTH)
    s, s_t, held = (np.asarray(x).reshape(shape) for x in (items.s_tm1, items.s_t, there))
    np.testing.assert_array_equal(s[:, 1:], s_t[:, :-1])
    np.testing.assert_array_equal(held, s != mdp.terminal)
    assert 0 < held.mean() < 1
    assert (np.asarray(items.query).reshape(shape) == np.arange(several_steps.WALKS)[:, None]).all()
    ended = s_t[held] == mdp.terminal
    np.testing.assert_array_equal(np.asarray(items.discount_t)[held.ravel()] == 0, ended)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_table_learns_the_process(steps: int) -> None:
    found = several_steps.learning(mdps.chain(4, slip=0.0), steps, 0.5, 2)
    assert max(found["regret"][-1]) < 0.01
    assert np.mean(found["error"][-1]) < 5 < np.mean(found["error"][0])


def test_a_target_of_several_steps_is_another_one() -> None:
    one, many = (several_steps.learning(mdps.grid(2), steps, 0.0, 2)["error"] for steps in (1, 8))
    assert not np.allclose(one, many)
