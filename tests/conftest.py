"""Four fake CPU devices, implicit rank promotion an error, compiled programs kept between runs.

Set through the environment, so that the programs a test starts inherit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import jax

_FAKE_DEVICES = "--xla_force_host_platform_device_count"

# Tests compile much and run little.
_FLAGS = ("--xla_backend_optimization_level=0", f"{_FAKE_DEVICES}=4")
if _FAKE_DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_numpy_rank_promotion", "raise")
