"""Low-rank adapters of any kernel: W + scale * low_in @ low_out (Hu et al. 2021, LoRA, eq. 3).

Agents of one architecture share one frozen trunk and have adapters of their own (`share`). `attach` puts an agent's
beside the trunk's kernels, so that the network runs without a copy of them; `merge` adds them in, once and for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from aco_jax.models import transformer
from aco_jax.models.config import Config
from aco_jax.types import Params


def init(key: chex.PRNGKey, params: Params, rank: int, chosen: Callable[[str], bool] = lambda path: True) -> Params:
    """Adapters for each kernel of two or more axes whose path ('decoder_0/own/query') is chosen.

    Returns:
      A tree of the chosen modules only, {'low_in' [inputs, rank], 'low_out' [rank, outputs]} each; `low_out` starts at
      zero, so a fresh adapter changes nothing. Axes of a kernel before its last count as inputs.
    """
    if rank < 1:
        raise ValueError(f"rank {rank} must be at least 1")
    found, tree = jax.tree_util.tree_flatten_with_path(_shapes(params, rank, chosen, ""))
    drawn = [leaf for path, leaf in found if path[-1].key == "low_in"]
    stops = np.cumsum([leaf.size for leaf in drawn])
    # One draw for all: a draw for each compiles for minutes where there are hundreds.
    parts = iter(jnp.split(jax.random.normal(key, (int(stops[-1]) if drawn else 0,)), stops[:-1]))
    leaves = [
        next(parts).reshape(leaf.shape) / np.sqrt(leaf.shape[0]).astype(np.float32)
        if path[-1].key == "low_in"
        else jnp.zeros(leaf.shape)
        for path, leaf in found
    ]
    return jax.tree.unflatten(tree, leaves)


def fresh(key: chex.PRNGKey, config: Config, rank: int) -> Params:
    """Adapters of this rank for a network of this form, whose parameters are elsewhere; with rank 0 a network."""
    if not rank:
        return transformer.init(key, config)
    return init(key, jax.eval_shape(lambda: transformer.init(jax.random.key(0), config)), rank)


def folded(params: Params) -> Params:
    """Parameters with attached adapters added in, and without them: as `merge` gives, once and for all."""
    found: Params = {}
    for name, node in params.items():
        if not isinstance(node, dict):
            found[name] = node
        elif "low_in" in node:
            rest = {part: leaf for part, leaf in node.items() if part not in ("low_in", "low_out")}
            found[name] = rest | {"kernel": node["kernel"] + node["low_in"] @ node["low_out"]}
        else:
            found[name] = folded(node)
    return found


def share(
    key: chex.PRNGKey,
    trunk: Params,
    agents: Sequence[str],
    rank: int,
    chosen: Callable[[str], bool] = lambda path: True,
) -> tuple[Params, dict[str, Params]]:
    """One trunk for several agents: the trunk, which nothing trains, and fresh adapters for each of them."""
    keys = jax.random.split(key, len(agents))
    return trunk, {agent: init(keys[i], trunk, rank, chosen) for i, agent in enumerate(agents)}


def attach(trunk: Params, adapters: Params, scale: float | chex.Array = 1.0) -> Params:
    """The trunk with the adapters beside its kernels: what the network reads, with gradients for the adapters only.

    The trunk's arrays are not copied. They may be quantised: `quantization.dequantize` leaves adapters alone.
    """
    return _beside(jax.tree.map(jax.lax.stop_gradient, trunk), adapters, scale)


def merge(params: Params, adapters: Params, scale: float | chex.Array = 1.0) -> Params:
    """Parameters with the adapters added in: the same tree as `params`, differentiable in the adapters."""
    merged = dict(params)
    for name, node in adapters.items():
        if set(node) == {"low_in", "low_out"}:
            kernel = params[name]["kernel"]
            change = scale * (node["low_in"] @ node["low_out"]).reshape(kernel.shape)
            merged[name] = params[name] | {"kernel": kernel + change}
        else:
            merged[name] = merge(params[name], node, scale)
    return merged


def apply(
    x: chex.Array, kernel: chex.Array, adapter: dict[str, chex.Array], scale: float | chex.Array = 1.0
) -> chex.Array:
    """x [.., I] through kernel [I, O] and its adapter, left apart: equals x through the merged kernel."""
    return x @ kernel + scale * (x @ adapter["low_in"]) @ adapter["low_out"]


def _beside(params: Params, adapters: Params, scale: float | chex.Array) -> Params:
    attached = dict(params)
    for name, node in adapters.items():
        if set(node) == {"low_in", "low_out"}:
            attached[name] = params[name] | {"low_in": node["low_in"], "low_out": scale * node["low_out"]}
        else:
            attached[name] = _beside(params[name], node, scale)
    return attached


def _shapes(params: Params, rank: int, chosen: Callable[[str], bool], path: str) -> Params:
    """The shapes of the adapters of each chosen kernel."""
    adapters: dict[str, Params] = {}
    for name, node in sorted(params.items()):
        if not isinstance(node, dict):
            continue
        place, kernel = f"{path}/{name}".lstrip("/"), node.get("kernel")
        if kernel is not None and kernel.ndim >= 2:
            if chosen(place):
                inputs, outputs = kernel.size // kernel.shape[-1], kernel.shape[-1]
                sizes = {"low_in": (inputs, rank), "low_out": (rank, outputs)}
                adapters[name] = {part: jax.ShapeDtypeStruct(size, jnp.float32) for part, size in sizes.items()}
        elif found := _shapes(node, rank, chosen, place):
            adapters[name] = found
    return adapters
