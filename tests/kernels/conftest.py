"""What a program holds, without running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import pytest


@pytest.fixture
def largest_array() -> Callable[[Any], int]:
    """Elements of the largest array that a jaxpr makes, loop bodies and calls included."""

    def largest(jaxpr: Any) -> int:
        sizes = [var.aval.size for equation in jaxpr.eqns for var in equation.outvars]
        for equation in jaxpr.eqns:
            for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
                if hasattr(inner, "eqns"):
                    sizes.append(largest(getattr(inner, "jaxpr", inner)))
        return max(sizes, default=0)

    return largest
