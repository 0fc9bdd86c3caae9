"""Replicas: each learns on its own anchors; a merge is the parameter server.

One body for a laptop and for a pod: a round is written for one replica and mapped over the leading axis R, over the
devices of a mesh and over the replicas of each device. The means and sums of the merge are the only communication, by
construction: what runs on a device sees its own replicas only, and so may hold kernels, which XLA cannot partition.

Sources: McMahan et al. 2017, Communication-Efficient Learning (local SGD); Mnih et al. 2016, A3C.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aco_jax import learner_state, replay, transitions
from aco_jax.data.records import InputError
from aco_jax.ops import values
from aco_jax.types import Metrics

AXIS = "replica"  # of the mesh
EVERY = (AXIS, "replica_of_device")  # the axis names of a merge

Round = Callable[[learner_state.State, chex.ArrayTree, chex.ArrayTree], tuple[learner_state.State, Metrics]]


def make_mesh(replicas: int) -> Mesh:
    """A mesh of as many devices, the same number of each process, as divide the replicas evenly.

    Raises InputError where the processes do not.
    """
    processes = jax.process_count()
    if replicas % processes:
        raise InputError(f"config.train.replicas: {replicas}, expected a multiple of the {processes} processes")
    own = [[device for device in jax.devices() if device.process_index == n] for n in range(processes)]
    share = replicas // processes
    count = max(n for n in range(1, min(share, *map(len, own)) + 1) if share % n == 0)
    devices = [device for part in own for device in part[:count]]
    return jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))


def start(state: learner_state.State, replicas: int, key: chex.PRNGKey) -> learner_state.State:
    """R copies of one state, each with its own key: leaves [R, ..]."""
    copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (replicas, *x.shape)), state)
    return dataclasses.replace(copies, key=jax.random.split(key, replicas))


def place(tree: chex.ArrayTree, mesh: Mesh, axis: str | None = AXIS) -> chex.ArrayTree:
    """Puts leaves [R, ..] onto the mesh, one shard a device; whole onto every device with `axis` None."""
    sharding = NamedSharding(mesh, PartitionSpec(axis))

    def put(x: chex.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):  # which have no way to the devices of other processes
            return jax.random.wrap_key_data(put(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        if isinstance(x, jax.Array) and x.is_fully_addressable and not sharding.is_fully_addressable:
            x = np.asarray(x)
        # What lies on the host is checked to be the same in all processes.
        return jax.device_put(x if isinstance(x, np.ndarray) else jnp.asarray(x, x.dtype), sharding)

    return jax.tree.map(put, tree)


def make_round(step: Callable, merge: Callable, mesh: Mesh) -> Round:
    """Compiles one round: `merge_every` local steps and a merge.

    Args:
        step: (state, batch, tables) -> (state, metrics), for one replica.
        merge: state -> state, run under the axis names `EVERY`; means over replicas happen here only.
        mesh: where the replicas lie.

    Returns:
        a function of the state [R, ..] (donated), batches [R, merge_every, ..] and tables, which all replicas share,
        that gives the state and the metrics, means over steps and replicas.
    """

    def one(state: learner_state.State, batches: chex.ArrayTree, tables: chex.ArrayTree):
        state, metrics = jax.lax.scan(lambda s, b: step(s, b, tables), state, batches)
        return merge(state), metrics

    traces: list[int] = []
    mapped = jax.shard_map(
        jax.vmap(one, in_axes=(0, 0, None), axis_name=EVERY[1]),
        mesh=mesh,
        in_specs=(PartitionSpec(AXIS), PartitionSpec(AXIS), PartitionSpec()),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,  # results of kernels do not say over which axes they vary
    )
    split, whole = NamedSharding(mesh, PartitionSpec(AXIS)), NamedSharding(mesh, PartitionSpec())

    @partial(jax.jit, donate_argnums=0, in_shardings=(split, split, whole), out_shardings=(split, whole))
    def run(state: learner_state.State, batches: chex.ArrayTree, tables: chex.ArrayTree):
        traces.append(1)
        if len(traces) > 1:
            raise RuntimeError("a round was traced again: its arguments changed their shapes or types")
        moved, metrics = mapped(state, batches, tables)
        return jax.tree.map(_strong, moved), jax.tree.map(jnp.mean, metrics)

    return run


def merge(state: learner_state.State, config: learner_state.Config) -> learner_state.State:
    """What one replica does at the end of a round, under the axis names `EVERY`.

    Parameters, optimiser moments, targets and old policies by mean; counts by the sum of their increments; the
    replay and the key stay local, only its numbers are exchanged.
    """
    averaged = jax.tree.map(_mean, state.averaged)
    state = dataclasses.replace(state, averaged=averaged)
    counts = transitions.merge(state.counts, jax.lax.psum(state.counts.increment, EVERY))
    state = dataclasses.replace(state, counts=counts, shards=replay.exchange(state.memory, EVERY))
    return _after_merge(state, config)


def average(state: learner_state.State) -> learner_state.State:
    """The merge of a supervised round: parameters and moments by mean."""
    return dataclasses.replace(state, averaged=jax.tree.map(_mean, state.averaged))


def first(tree: chex.ArrayTree) -> chex.ArrayTree:
    """The first replica's leaves, [R, ..] -> [..] on the host: after a merge all that is averaged is equal."""
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x)[0], tree)


def _after_merge(state: learner_state.State, config: learner_state.Config) -> learner_state.State:
    """What follows from merged parameters: what actor and base share."""
    params = _share_encoders(state.averaged.params, state.merges + 1, config)
    averaged = dataclasses.replace(state.averaged, params=params)
    return dataclasses.replace(state, averaged=averaged, merges=state.merges + 1)


def _share_encoders(
    params: dict[str, chex.Array], merges: chex.Array, config: learner_state.Config
) -> dict[str, chex.Array]:
    """Polyak-averages what actor and base have in common but the decision: their encoders."""
    if not config.share_every:
        return params
    rate = jnp.where(merges % config.share_every == 0, config.share_rate, 0.0)
    common = [
        np.full(leaf.size, path[0].key.startswith("encoder"))
        for path, leaf in jax.tree_util.tree_leaves_with_path(learner_state.forms(config)["base"])
    ]
    rates = jnp.where(np.concatenate(common), rate, 0.0)
    ours, theirs = params["base"], params["actor"]
    return params | {"base": values.polyak(ours, theirs, rates), "actor": values.polyak(theirs, ours, rates)}


def _strong(x: chex.Array) -> chex.Array:
    """The same without the weak type of a Python number, which would make another program of a round."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jnp.asarray(x, x.dtype)


def _mean(x: chex.Array) -> chex.Array:
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return x  # step counters, the same everywhere
    return jax.lax.pmean(x, EVERY)
