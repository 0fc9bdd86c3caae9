"""Bits in, bits out; damage is noticed, reported, and stepped over."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from aco_jax import checkpoints
from aco_jax.data.records import InputError


class Moments(NamedTuple):
    mean: jax.Array
    count: jax.Array


# NaN with a payload, -0, a denormal number, infinity
ODD = np.array([0x7FC00001, 0x80000000, 0x00000001, 0x7F800000], np.uint32).view(np.float32)
COUNTS = np.arange(6, dtype=np.uint64).reshape(2, 3)


def make_state(seed=0):
    key = jax.random.key(seed)
    return {
        "params": {
            "dense/kernel": jax.random.normal(key, (3, 4)),
            "scale": jnp.full((5,), 1 / 3, jnp.bfloat16),
        },
        "moments": Moments(jnp.asarray(ODD), jnp.array(seed, jnp.int32)),
        "key": jax.random.fold_in(key, 1),
        "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 3),
        "mask": jnp.array([True, False]),
        "int8": jnp.array([-128, 127], jnp.int8),
        "host": {"counts": COUNTS + np.uint64(seed), "loss": np.array(0.1, np.float64)},
        "empty": jnp.zeros((0, 3)),
        "position": 7 + seed,
        "rate": 0.1,
        "done": False,
        "nothing": None,
    }


def as_bytes(tree):
    def one(leaf):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return str(jax.random.key_impl(leaf)), np.asarray(jax.random.key_data(leaf)).tobytes()
        return str(np.asarray(leaf).dtype), np.shape(leaf), np.asarray(leaf).tobytes()

    return [one(leaf) for leaf in jax.tree.leaves(tree)]


def files_of(folder: Path, step: int):
    return sorted(path for path in (folder / str(step)).rglob("*") if path.is_file() and path.stat().st_size)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(bytes(content))


def test_round_trip_is_exact(tmp_path):
    state = make_state()
    meta = {"config": {"seed": 0}, "edges": [0.1, 1e-30], "name": "é", "none": None}
    checkpoints.save(tmp_path, 4, state, meta)
    found = checkpoints.restore(tmp_path, make_state(seed=9))
    assert found is not None
    step, restored, restored_meta = found
    assert step == 4
    assert restored_meta == meta
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert as_bytes(restored) == as_bytes(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(restored), strict=True):
        assert type(new) is type(old)
    assert jax.random.uniform(restored["key"]) == jax.random.uniform(state["key"])


def test_nothing_saved_is_none(tmp_path):
    assert checkpoints.restore(tmp_path / "absent", make_state()) is None
    assert checkpoints.steps(tmp_path / "absent") == []


def test_keeps_the_newest(tmp_path):
    for step in range(5):
        checkpoints.save(tmp_path, step, {"x": jnp.array(step)}, keep=2)
    assert checkpoints.steps(tmp_path) == [3, 4]
    assert {path.name for path in tmp_path.iterdir()} == {"3", "4"}


def test_shardings_are_the_templates(tmp_path):
    mesh = jax.make_mesh((4,), ("replica",), axis_types=(AxisType.Auto,))
    over = NamedSharding(mesh, PartitionSpec("replica"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    values = jnp.arange(8.0).reshape(4, 2)
    keys = jax.random.split(jax.random.key(3), 4)
    checkpoints.save(tmp_path, 1, {"w": values, "v": values, "keys": keys})
    template = {
        "w": jax.device_put(jnp.zeros((4, 2)), over),
        "v": jax.device_put(jnp.zeros((4, 2)), everywhere),
        "keys": jax.device_put(jax.random.split(jax.random.key(0), 4), over),
    }
    found = checkpoints.restore(tmp_path, template)
    assert found is not None
    restored = found[1]
    for name in template:
        assert restored[name].sharding.is_equivalent_to(template[name].sharding, template[name].ndim), name
    np.testing.assert_array_equal(restored["w"], values)
    np.testing.assert_array_equal(jax.random.key_data(restored["keys"]), jax.random.key_data(keys))

    checkpoints.save(tmp_path, 2, restored)  # and from four devices back to one
    back = checkpoints.restore(tmp_path, {"w": values, "v": values, "keys": keys})
    assert back is not None
    assert as_bytes(back[1]) == as_bytes({"w": values, "v": values, "keys": keys})


@pytest.mark.parametrize("part", ["state", "record.json"])
@pytest.mark.parametrize("damage", ["truncate", "remove", "flip"])
def test_goes_back_over_a_damaged_step(tmp_path, caplog, part, damage):
    states = [{"w": jax.random.normal(jax.random.key(step), (64, 16))} for step in range(3)]
    for step, state in enumerate(states):
        checkpoints.save(tmp_path, step, state, {"step": step})
    files = [path for path in files_of(tmp_path, 2) if part in path.parts]
    largest = max(files, key=lambda path: path.stat().st_size)
    if damage == "truncate":
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    elif damage == "remove":
        largest.unlink()
    else:
        flip(largest, largest.stat().st_size // 2)
    with caplog.at_level(logging.WARNING, logger="aco_jax.checkpoints"):
        found = checkpoints.restore(tmp_path, states[0])
    assert found is not None
    step, restored, meta = found
    assert (step, meta) == (1, {"step": 1})
    assert as_bytes(restored) == as_bytes(states[1])
    (message,) = [record.getMessage() for record in caplog.records if record.name == "aco_jax.checkpoints"]
    assert "step 2 is damaged" in message
    assert "\n" not in message


def test_no_flipped_byte_is_taken_for_the_truth(tmp_path):
    """Wherever a byte of the newest step flips, the step before comes back as it was saved."""
    states = [{"w": jnp.full((8, 8), float(step))} for step in range(2)]
    for step, state in enumerate(states):
        checkpoints.save(tmp_path, step, state, {"step": step})
    for path in files_of(tmp_path, 1):
        original = path.read_bytes()
        for position in np.linspace(0, len(original) - 1, 3).astype(int):
            flip(path, position)
            found = checkpoints.restore(tmp_path, states[0])
            assert found is not None
            assert found[0] == found[2]["step"] == 0, (path, position)
            path.write_bytes(original)
    found = checkpoints.restore(tmp_path, states[0])
    assert found is not None
    assert as_bytes(found[1]) == as_bytes(states[1])


def test_all_damaged_is_an_error(tmp_path):
    for step in range(2):
        checkpoints.save(tmp_path, step, {"w": jnp.ones((64,))})
        for path in files_of(tmp_path, step):
            path.write_bytes(b"")
    with pytest.raises(InputError, match=r"all steps \(0, 1\) are damaged"):
        checkpoints.restore(tmp_path, {"w": jnp.ones((64,))})


def test_going_on_after_damage_overwrites_the_later_steps(tmp_path):
    for step in range(4):
        checkpoints.save(tmp_path, step, {"w": jnp.full((4,), float(step))})
    checkpoints.save(tmp_path, 2, {"w": jnp.full((4,), 20.0)})
    assert checkpoints.steps(tmp_path) == [1, 2]
    found = checkpoints.restore(tmp_path, {"w": jnp.zeros((4,))})
    assert found is not None
    assert found[0] == 2
    np.testing.assert_array_equal(found[1]["w"], np.full((4,), 20.0))


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ({"w": jnp.zeros((3,))}, r"\['w'\] is float32\[2\], expected float32\[3\]"),
        ({"w": jnp.zeros((2,), jnp.int32)}, r"\['w'\] is float32\[2\], expected int32\[2\]"),
        ({"w": jnp.zeros((2,)), "v": jnp.zeros((1,))}, r"\['v'\] is nothing, expected float32\[1\]"),
        ({}, r"\['w'\] is float32\[2\], expected nothing"),
    ],
)
def test_another_structure_is_not_damage(tmp_path, template, message):
    checkpoints.save(tmp_path, 1, {"w": jnp.zeros((2,))})
    with pytest.raises(InputError, match=message):
        checkpoints.restore(tmp_path, template)


def test_a_killed_save_leaves_the_last_step(tmp_path):
    """A save is a folder that is renamed when whole; one that was never renamed is no step."""
    checkpoints.save(tmp_path, 1, {"w": jnp.ones((4,))})
    unfinished = tmp_path / "2.orbax-checkpoint-tmp-1"
    (unfinished / "state").mkdir(parents=True)
    (unfinished / "state" / "_METADATA").write_text("{")
    found = checkpoints.restore(tmp_path, {"w": jnp.zeros((4,))})
    assert found is not None
    assert found[0] == 1
    checkpoints.save(tmp_path, 2, {"w": jnp.ones((4,))})
    assert checkpoints.steps(tmp_path) == [1, 2]


def test_the_last_step_goes_only_when_the_next_is_whole(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, {"w": jnp.ones((4,))}, keep=1)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "_write_record", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(tmp_path, 2, {"w": jnp.ones((4,))}, keep=1)
    found = checkpoints.restore(tmp_path, {"w": jnp.zeros((4,))})
    assert found is not None
    assert found[0] == 1
    checkpoints.save(tmp_path, 2, {"w": jnp.ones((4,))}, keep=1)
    assert checkpoints.steps(tmp_path) == [2]
