PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SECONDS ?= 60
ENV_MADE := $(VENV)/.made
# Tests start many processes, each of which would compile torch's sources for itself.
unexport PYTHONDONTWRITEBYTECODE
# A process a core, up to 1.5 GB each; the tests of a file stay in one, with what they share. In the order of the files:
# tests/conftest.py says which has to be the last.
PYTEST := $(BIN)/python -P -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all test-frameworks test-tensorflow test-dali test-wheel fuzz lint format docs clean

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
	$(MAKE) test-frameworks
	$(MAKE) test-wheel

test-frameworks: test-tensorflow test-dali  ## The tests of frameworks that are large, each in an environment of its own

test-tensorflow: .venv-tensorflow/.made
	.venv-tensorflow/bin/python -P -m pytest --no-skips -k 'tensorflow or tfrecord' \
	  tests/test_tensorflow.py tests/convert/targets/test_tfrecord.py tests/test_export_docs.py

test-dali: .venv-dali/.made
	.venv-dali/bin/python -P -m pytest --no-skips tests/torch/test_dali.py

.venv-%/.made: $(ENV_MADE)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-$*
	$(BIN)/uv pip install --quiet --python .venv-$*/bin/python --constraint .ci/constraints.txt \
	  --editable '.[$*]' hypothesis pytest
	@touch $@

test-wheel: env  ## The suite on the built wheel instead of the checkout
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/uv build --quiet --wheel --out-dir build/wheel
	$(BIN)/python -m zipfile -e build/wheel/*.whl build/wheel/site
	PYTHONPATH=build/wheel/site $(PYTEST) -m 'not slow and not gpu and not network'

fuzz: env  ## Feed made-up files to whatever parses files of strangers, a minute each (SECONDS=60)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint .ci/constraints.txt --editable '.[fuzz]'
	$(BIN)/python -P fuzz/run.py --seconds $(SECONDS)

format: env  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env  ## Write the pages of commands and of checks anew
	$(BIN)/python -m relabel_store.cli.reference > docs/reference/commands.md
	$(BIN)/python -m relabel_store.validate.catalog > docs/reference/checks.md

clean:  ## Remove what these commands made
	rm -rf $(VENV) .venv-* build demo .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
