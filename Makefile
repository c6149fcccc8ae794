# `make grid`  the cliff study on DIGITS, from nothing
# `make test`  lint, types and all tests, from nothing
# Both make their own environment in .venv with the versions of constraints.txt.
.DEFAULT_GOAL := help
SHELL := /bin/sh

# The first Python of 3.11 or later that answers; `make PYTHON=/path/to/python3.12 test` chooses another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
ARGS ?=
# what also runs as plain Python, and what also runs in the simulator of a GPU, where kernels for the CPU are as in `unit`
PLAIN := tests/test_arithmetic.py tests/test_rounding.py tests/test_random.py tests/kernels
CUDASIM := tests/test_arithmetic.py tests/test_rounding.py tests/test_random.py \
  $(wildcard tests/test_online_cuda.py tests/test_training_cuda.py tests/kernels/test_cuda_*.py)

.PHONY: help grid test lint types unit unit-nojit unit-cudasim notebooks benchmark benchmark-gpu format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "intnet needs Python 3.11 or later; none was found. Install it, or say make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed-all: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[all]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.made
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.installed-all

grid: $(VENV)/.installed-all ## the cliff study on DIGITS; ARGS="--dataset mnist" for another
	$(BIN)/python experiments/grid.py $(ARGS)

# The longest beside the others, where make can keep their reports apart; never two that compile into one cache.
TOGETHER := $(if $(filter output-sync,$(.FEATURES)),--jobs=2 --output-sync=target)

test: lint types ## what CI runs: lint, types, tests three ways, notebooks
	$(MAKE) $(TOGETHER) unit unit-cudasim unit-nojit notebooks

lint: $(VENV)/.installed-dev ## ruff: lint and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev ## mypy
	$(BIN)/mypy

unit: $(VENV)/.installed-dev ## all tests, compiled
	$(BIN)/python -m pytest

unit-nojit: $(VENV)/.installed-dev ## arithmetic and kernels as plain Python
	NUMBA_DISABLE_JIT=1 $(BIN)/python -m pytest $(PLAIN)

unit-cudasim: $(VENV)/.installed-dev ## arithmetic and GPU kernels in the CUDA simulator
	NUMBA_ENABLE_CUDASIM=1 NUMBA_CACHE_DIR=$(CURDIR)/$(VENV)/numba-cudasim $(BIN)/python -m pytest $(CUDASIM)

notebooks: $(VENV)/.installed-dev ## run every notebook
	NUMBA_CACHE_DIR=$(CURDIR)/$(VENV)/numba-notebooks $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks

benchmark: $(VENV)/.installed-dev ## the grid against a NumPy loop, products against OpenBLAS, ...; ARGS="--data-dir DIR" for MNIST
	$(BIN)/python benchmarks/grid.py $(ARGS)
	$(BIN)/python benchmarks/matmul.py
	$(BIN)/python benchmarks/convolution.py
	$(BIN)/python benchmarks/requantize.py
	$(BIN)/python benchmarks/training.py $(ARGS)

benchmark-gpu: $(VENV)/.installed-dev ## on a machine with a GPU: its bits against the CPU's, its times against its floors
	$(BIN)/python benchmarks/gpu.py $(ARGS)

format: $(VENV)/.installed-dev ## let ruff rewrite
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## remove the environment and caches, never results
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find intnet -name __pycache__ -prune -exec rm -rf {} +
