"""How XLA compiles for the CPU here: much is compiled and each program runs for seconds, so compile time counts."""

from __future__ import annotations

from importlib import metadata

FUSION_EMITTERS = "--xla_cpu_use_fusion_emitters"


def fast_flags(flags: str) -> str:
    """XLA_FLAGS to set before jax is imported: without fusion emitters, half of the compilation, for no gain in speed.

    Only where this jaxlib is known to have the flag: XLA ends the process over a flag that it does not know.
    """
    known = metadata.version("jaxlib").startswith("0.10.")
    return f"{flags} {FUSION_EMITTERS}=false".strip() if known and FUSION_EMITTERS not in flags else flags
