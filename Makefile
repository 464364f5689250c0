PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ENV_MADE := $(VENV)/.made
# A process a core, up to 1.5 GB each; the tests of a file stay in one, with what they share.
PYTEST := $(BIN)/python -P -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all test-wheel lint format docs clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

env: $(ENV_MADE)  ## Make .venv with everything the tests need

$(ENV_MADE): pyproject.toml .ci/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint .ci/constraints.txt --editable '.[all]'
	@touch $@

demo: env  ## Label nine photographs with a real teacher and draw the maps, in ./demo
	$(BIN)/relabel-store demo demo

lint: env  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint  ## The suite that gates every change
	$(PYTEST) -m 'not slow and not gpu and not network'

test-all: lint  ## The suite with its long runs, then again on the built wheel
	$(PYTEST) -m 'not gpu and not network'
	$(MAKE) test-wheel

test-wheel: env  ## The suite on the built wheel instead of the checkout
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/uv build --quiet --wheel --out-dir build/wheel
	$(BIN)/python -m zipfile -e build/wheel/*.whl build/wheel/site
	PYTHONPATH=build/wheel/site $(PYTEST) -m 'not slow and not gpu and not network'

format: env  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env  ## Write the commands' page anew
	$(BIN)/python -m relabel_store.cli.reference > docs/reference/commands.md

clean:  ## Remove what these commands made
	rm -rf $(VENV) build demo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
