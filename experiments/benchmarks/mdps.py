"""Decision processes small enough for value iteration: a chain, a gridworld that slips, random Garnets.

The last state is the ended one: it pays nothing and is never left.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aco_jax.types import Transition

DISCOUNT = 0.9


@dataclass(frozen=True)
class Mdp:
    """Probabilities of next states and expected rewards of every action."""

    name: str
    p: np.ndarray  # [S, A, S]
    r: np.ndarray  # [S, A]

    @property
    def states(self) -> int:
        return self.r.shape[0]

    @property
    def actions(self) -> int:
        return self.r.shape[1]

    @property
    def terminal(self) -> int:
        return self.states - 1

    @property
    def best(self) -> np.ndarray:
        """Q* [S, A]."""
        return value_iteration(self.p, self.r)

    @property
    def value_range(self) -> float:
        q = self.best[:-1]
        return float(q.max() - q.min())


def chain(length: int = 8, slip: float = 0.2) -> Mdp:
    """Left pays 0.1 in the first state; right stays with a chance of `slip`, and in the last state pays 1 and ends."""
    p, r = np.zeros((length + 1, 2, length + 1)), np.zeros((length + 1, 2))
    for s in range(length):
        p[s, 0, max(s - 1, 0)] += 1.0
        p[s, 1, s + 1] += 1.0 - slip
        p[s, 1, s] += slip
    r[0, 0], r[length - 1, 1] = 0.1, 1.0 - slip
    p[length, :, length] = 1.0
    return Mdp(f"chain, slip {slip:g}", p, r)


def grid(side: int = 4, slip: float = 0.2) -> Mdp:
    """Four directions, with a chance of `slip` to go aside instead; a corner pays 1, its neighbour -1, both end."""
    count = side * side
    p, r = np.zeros((count + 1, 4, count + 1)), np.zeros((count + 1, 4))
    moves = ((-1, 0), (0, 1), (1, 0), (0, -1))
    for s in range(count):
        if s in (count - 1, count - 2):
            p[s, :, count], r[s, :] = 1.0, 1.0 if s == count - 1 else -1.0
            continue
        for a in range(4):
            for turn, chance in ((0, 1 - slip), (1, slip / 2), (3, slip / 2)):
                down, right = moves[(a + turn) % 4]
                row, column = np.clip((s // side + down, s % side + right), 0, side - 1)
                p[s, a, row * side + column] += chance
    p[count, :, count] = 1.0
    return Mdp(f"grid, slip {slip:g}", p, r)


def garnet(seed: int = 0, states: int = 24, actions: int = 3, branches: int = 3) -> Mdp:
    """Random next states with random chances, random rewards. Archibald et al. 1995, On the Generation of MDPs."""
    rng = np.random.default_rng(seed)
    p, r = np.zeros((states + 1, actions, states + 1)), np.zeros((states + 1, actions))
    r[:states] = rng.normal(size=(states, actions))
    for s in range(states):
        for a in range(actions):
            p[s, a, rng.choice(states, branches, replace=False)] = rng.dirichlet(np.ones(branches))
    p[states, :, states] = 1.0
    return Mdp("Garnet", p, r)


def value_iteration(p: np.ndarray, r: np.ndarray, sweeps: int = 400) -> np.ndarray:
    """Q* [S, A] in float64, the ended state's 0."""
    q = np.zeros(r.shape)
    for _ in range(sweeps):
        q = r + DISCOUNT * p @ q.max(axis=1)
    return q


def policy_value(mdp: Mdp, policy: np.ndarray) -> np.ndarray:
    """V of a policy [S, A] in every state, [S], exactly."""
    inside = slice(0, mdp.terminal)
    chance = np.einsum("sa,sat->st", policy, mdp.p)[inside, inside]
    reward = np.sum(policy * mdp.r, axis=1)[inside]
    return np.append(np.linalg.solve(np.eye(mdp.terminal) - DISCOUNT * chance, reward), 0.0)


def experience(mdp: Mdp, key: jax.Array, count: int) -> Transition:
    """Transitions from pairs of state and action drawn evenly, leaves [count]."""
    first, second, third = jax.random.split(key, 3)
    s = jax.random.randint(first, (count,), 0, mdp.terminal)
    a = jax.random.randint(second, (count,), 0, mdp.actions)
    return transitions(mdp, s, a, step(mdp, third, s, a))


def even_experience(mdp: Mdp, each: int) -> Transition:
    """Every pair of state and action `each` times, with next states in their true proportions: no luck in it."""
    s, a, place = (x.ravel() for x in np.indices((mdp.terminal, mdp.actions, each)))
    s, a = jnp.asarray(s), jnp.asarray(a)
    return transitions(mdp, s, a, _next_state(mdp, s, a, jnp.asarray((place + 0.5) / each, jnp.float32)))


def step(mdp: Mdp, key: jax.Array, s: jax.Array, a: jax.Array) -> jax.Array:
    """Next states of states and actions [..]."""
    return _next_state(mdp, s, a, jax.random.uniform(key, s.shape))


def _next_state(mdp: Mdp, s: jax.Array, a: jax.Array, quantile: jax.Array) -> jax.Array:
    below = jnp.asarray(np.cumsum(mdp.p, axis=-1), jnp.float32)[s, a]
    return jnp.minimum(jnp.sum(jnp.expand_dims(quantile, -1) >= below, axis=-1), mdp.terminal)


def transitions(mdp: Mdp, s: jax.Array, a: jax.Array, s_t: jax.Array) -> Transition:
    """Transitions of states, actions and next states [count] under the even policy, leaves [count]."""
    return Transition(
        s_tm1=s,
        a_tm1=a,
        r_t=jnp.asarray(mdp.r, jnp.float32)[s, a],
        discount_t=jnp.where(s_t == mdp.terminal, 0.0, DISCOUNT),
        s_t=s_t,
        mu_tm1=jnp.full(s.shape, 1.0 / mdp.actions),
        anchor=s,
        record=s,
        query=s,
    )
