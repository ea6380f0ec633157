# The two commands of the README are `make demo` and `make test`. Everything is installed into folders of this checkout.
# `compileall`: where Python is told not to write bytecode, an editable install would compile every module at every start.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
MERGEKIT := .venv-mergekit
BIN := $(VENV)/bin

.PHONY: demo test test-peers bench fuzz schema clean

demo: $(VENV)/.installed
	$(BIN)/surgery demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not peers"

test-peers: $(PEERS)/.installed $(PEERS)/.torch
	$(PEERS)/bin/python -m pytest -q -n auto --dist worksteal -m peers

bench: $(PEERS)/.installed $(PEERS)/.torch $(MERGEKIT)/.installed
	$(PEERS)/bin/python -m compileall -q surgery
	$(PEERS)/bin/python -m bench $(ARGS)

# Atheris guides the damage by coverage; where it cannot be had, the mutations of `fuzz` go without.
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/.dev $(VENV)/.fuzz
	$(BIN)/python -m fuzz --seconds $(FUZZ_SECONDS) $(ARGS)

$(VENV)/.fuzz:
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	touch $@

schema: $(VENV)/.installed
	$(BIN)/surgery schema --write schemas/recipe.schema.json

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	$(BIN)/python -m compileall -q surgery
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/python -m compileall -q surgery
	touch $@ $(VENV)/.installed

$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev,peers]'
	touch $@

# What these two bring is only compared with: where they cannot be had, tests and rows of `bench` are skipped and say so.
$(PEERS)/.torch: $(PEERS)/.installed
	-$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
	touch $@

$(MERGEKIT)/.installed:
	$(PYTHON) -m venv $(MERGEKIT)
	-$(MERGEKIT)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 mergekit
	touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(MERGEKIT) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .corpus
