"""Lowers and compiles for chips that are not here; prints a JSON object a line: what it was, and what it holds.

    python tests/kernels/ahead_of_time.py lower     every kernel, for TPU and for CUDA (Triton)
    python tests/kernels/ahead_of_time.py kernels   every kernel, compiled for TPU v5e; needs libtpu
    python tests/kernels/ahead_of_time.py round     a round of the loop, compiled for 2x4 TPU v5e; needs libtpu

A program of its own, for libtpu is loaded once a process and may hang or abort.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, SingleDeviceSharding

from aco_jax import configuration, learner, prepare, replicas, settings, train
from aco_jax import desk as desks
from aco_jax.data import catalogue, records
from aco_jax.kernels import sum_tree, tiles, token_kl, token_log_prob, transition_counts
from configs import smoke

Shape = tuple[tuple[int, ...], Any]
F32, BF16, I32, BOOL = jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_


def _hidden(length: int, width: int, vocabulary: int, dtype: Any) -> list[Shape]:
    return [((length, width), dtype), ((vocabulary, width), dtype)]


def _triples(states: int, actions: int, triples: int) -> list[Shape]:
    return [((states, actions, states), I32), *[((triples,), I32)] * 3, ((triples,), BOOL)]


def _entries(leaves: int, entries: int) -> list[Shape]:
    return [((2 * leaves,), F32), ((entries,), I32), ((entries,), F32), ((entries,), BOOL)]


def _gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """With respect to hidden and embedding, of the sum of all that is given."""
    return jax.grad(lambda *args: sum(jnp.sum(x) for x in jax.tree.leaves(function(*args))), argnums=(0, 1))


def _mapped(shapes: Sequence[Shape]) -> list[Shape]:
    return [((2, *shape), dtype) for shape, dtype in shapes]


def programs(platform: str) -> dict[str, tuple[Callable[..., Any], list[Shape]]]:
    """Every kernel at an ordinary and at an odd size, mapped, in half precision, and its gradient."""
    log_prob = functools.partial(token_log_prob.pallas, platform=platform)
    kl = functools.partial(token_kl.pallas, platform=platform)
    update = functools.partial(sum_tree.pallas_update, platform=platform)
    descend = functools.partial(sum_tree.pallas_descend, platform=platform)
    count = functools.partial(transition_counts.pallas, platform=platform)
    ordinary, odd, half = _hidden(256, 576, 4096, F32), _hidden(77, 33, 301, F32), _hidden(256, 576, 4096, BF16)
    wide = _hidden(200, tiles.WIDEST, 2048, F32)  # as wide as VMEM takes, of one side or of two
    masses = ((256,), F32)
    return {
        "token_log_prob": (log_prob, [*ordinary, ((256,), I32)]),
        "token_log_prob odd": (log_prob, [*odd, ((77,), I32)]),
        "token_log_prob half": (log_prob, [*half, ((256,), I32)]),
        "token_log_prob wide": (log_prob, [*wide, ((200,), I32)]),
        "token_log_prob mapped": (jax.vmap(log_prob), _mapped([*odd, ((77,), I32)])),
        "token_log_prob gradient": (_gradient(log_prob), [*ordinary, ((256,), I32)]),
        "token_kl": (kl, [*ordinary, *ordinary]),
        "token_kl odd": (kl, [*odd, *_hidden(77, 20, 301, F32)]),
        "token_kl half": (kl, [*half, *half]),
        "token_kl wide": (kl, [*_hidden(200, tiles.WIDEST // 2, 2048, F32)] * 2),
        "token_kl mapped": (jax.vmap(kl), _mapped([*odd, *odd])),
        "token_kl gradient": (_gradient(kl), [*ordinary, *ordinary]),
        "sum_tree update": (update, _entries(4096, 512)),
        "sum_tree update odd": (update, _entries(2, 7)),
        "sum_tree update largest": (jax.vmap(update), _mapped(_entries(sum_tree.LARGEST_TREE // 2, 4096))),
        "sum_tree descend": (descend, [((8192,), F32), masses, masses]),
        "sum_tree descend odd": (descend, [((4,), F32), ((7,), F32), ((7,), F32)]),
        "sum_tree descend largest": (
            jax.vmap(descend),
            _mapped([((sum_tree.LARGEST_TREE,), F32), *[((sum_tree.MOST_SLOTS,), F32)] * 2]),
        ),
        "transition_counts": (count, _triples(1024, 5, 512)),
        "transition_counts odd": (count, _triples(77, 3, 7)),
        "transition_counts mapped": (jax.vmap(count), _mapped(_triples(77, 3, 50))),
        "transition_counts largest": (count, _triples(1024, 5, transition_counts.MOST_TRIPLES)),
    }


def lower() -> Iterator[dict[str, Any]]:
    """Every kernel, for both platforms."""
    for platform in ("tpu", "cuda"):
        for name, (function, shapes) in programs(platform).items():
            with _card() if platform == "cuda" else contextlib.nullcontext():
                traced = jax.jit(function).trace(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))
                text = traced.lower(lowering_platforms=(platform,)).as_text()
            yield {"name": f"{platform} {name}", "calls": _calls(text)}


def kernels() -> Iterator[dict[str, Any]]:
    """Every kernel, compiled for one chip."""
    chip = SingleDeviceSharding(topologies.get_topology_desc("v5e:2x4", "tpu").devices[0])
    for name, (function, shapes) in programs("tpu").items():
        arguments = [jax.ShapeDtypeStruct(*shape, sharding=chip) for shape in shapes]
        compiled = jax.jit(function).lower(*arguments).compile()
        yield {"name": name, "calls": _calls(compiled.as_text()), **_memory(compiled)}


def one_round() -> Iterator[dict[str, Any]]:
    """A round of the smoke config with a replica a chip."""
    mesh = Mesh(np.array(topologies.get_topology_desc("v5e:2x4", "tpu").devices), (replicas.AXIS,), (AxisType.Auto,))
    advance, arguments = _round(mesh)
    compiled = advance.lower(*arguments).compile()
    text = compiled.as_text()
    talk = re.findall(
        r" (all-reduce|all-gather|all-to-all|collective-[a-z]+|reduce-scatter|send|recv)(?:-start)?\(", text
    )
    yield {"name": "round", "calls": _calls(text), "communication": dict(Counter(talk)), **_memory(compiled)}


def _round(mesh: Mesh) -> tuple[Any, list[Any]]:
    """The compiled form's maker, and the shapes of its arguments."""
    with tempfile.TemporaryDirectory() as folder:
        catalogue.generate(0, shops=2, size=40, difficulty=0.2).write(Path(folder))
        config = smoke.get_config()
        config.data.path = folder
        config.train.replicas = 1  # material and state of one, whose shapes are those of each
        config.agents.replay_capacity //= mesh.size
        config = configuration.from_dict(settings.TrainConfig, config.to_dict())
        dataset = records.read_folder(Path(folder), relations=records.SAME)
        desk = train.open_desk(config, dataset, Path(folder))
    agents = settings.learner_config(config, dataset, desk.tokenizer)
    run = train.start(config, agents, desk)
    material, _ = prepare.round_material(desk, config, agents, train.parameters(run, agents), run.believed, 0)
    each = jax.tree.map(lambda x: jax.ShapeDtypeStruct((mesh.size, *x.shape[1:]), x.dtype), (run.state, material))
    tables = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), desks.tables(desk))
    step, merge = (functools.partial(f, config=agents) for f in (learner.local_step, replicas.merge))
    return replicas.make_round(step, merge, mesh), [*each, tables]


def _card() -> contextlib.AbstractContextManager[Any]:
    """An H100 to lower for, where this jax asks for one; jax 0.10 takes compute capability 9.0 by itself."""
    if jax.__version_info__ < (0, 11):
        return contextlib.nullcontext()
    card = jax.sharding.AbstractDevice(device_kind="NVIDIA H100", num_cores=132, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1,), ("x",), (AxisType.Explicit,), abstract_device=card)
    return jax.sharding.use_abstract_mesh(mesh)


def _calls(text: str) -> int:
    """Kernels that a program launches."""
    return len(re.findall(r"tpu_custom_call|__gpu\$xla\.gpu\.triton", text))


def _memory(compiled: Any) -> dict[str, int]:
    found = compiled.memory_analysis()
    kinds = ("argument", "output", "alias", "temp", "generated_code")
    return {kind: getattr(found, f"{kind}_size_in_bytes") for kind in kinds}


if __name__ == "__main__":
    for row in {"lower": lower, "kernels": kernels, "round": one_round}[sys.argv[1]]():
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()
