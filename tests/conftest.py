"""Four fake CPU devices, implicit rank promotion an error, compiled programs kept between runs; two small shops.

Set through the environment, so that the programs a test starts inherit it.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pandas as pd
import pytest

import compilation
from aco_jax import configuration
from aco_jax.data import catalogue, records
from aco_jax.settings import TrainConfig

_FAKE_DEVICES = "--xla_force_host_platform_device_count"

_FLAGS = ("--xla_backend_optimization_level=0", f"{_FAKE_DEVICES}=4")  # tests compile much and run little
if _FAKE_DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = compilation.fast_flags(" ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip())
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_numpy_rank_promotion", "raise")


MAPPED = 20_000  # regions of memory; Linux gives a process 65,530, and every compiled program takes some
_REGIONS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Compiled programs are dropped between modules before the process has no room for more, which would end it."""
    yield
    if _REGIONS.exists() and len(_REGIONS.read_bytes().splitlines()) > MAPPED:
        jax.clear_caches()


@pytest.fixture(scope="session")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shops with their gold beside them."""
    folder = tmp_path_factory.mktemp("shops")
    catalogue.generate(0, shops=2, size=24, difficulty=0.2).write(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(shops: Path) -> TrainConfig:
    """The smoke config on these shops, smaller still."""
    config = importlib.import_module("configs.smoke").get_config()
    config.data.path = str(shops)
    config.train.update(pretrain_rounds=1, pretrain_steps=2, rounds=2, merge_every=1, anchors_per_step=4, candidates=3)
    config.model.update(width=16, mlp_width=16)
    config.environment.max_steps = 8
    return configuration.from_dict(TrainConfig, config.to_dict())


@pytest.fixture(scope="session")
def patient(tiny: TrainConfig) -> TrainConfig:
    """As many steps of the judge as so few records take before anything is stated."""
    return dataclasses.replace(tiny, agents=dataclasses.replace(tiny.agents, judge_steps=100))


@pytest.fixture(scope="session")
def kitchens() -> tuple[records.Table, ...]:
    """Records 0..11 and 12..23: pans of 20 and 24 cm, lids of 20 and 24 cm, three times."""
    words = {"pan": ("frying pan with riveted handle", 40), "lid": ("glass cover with steam vent", 12)}
    rows = [(f"{kind} {size} cm {text}", price + 0.37) for kind, (text, price) in words.items() for size in (20, 24)]
    frame = pd.DataFrame(rows * 3, columns=["title", "price"]).astype(str)
    frame.insert(0, "id", [str(n) for n in range(len(frame))])
    return records.from_frames({"a": frame, "b": frame}).tables
