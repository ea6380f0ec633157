# The two commands of the README are `make demo` and `make test`. Everything is installed into folders of this checkout.
# `compileall`: where Python is told not to write bytecode, an editable install would compile every module at every start.
PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin

.PHONY: demo test test-peers bench schema clean

demo: $(VENV)/.installed
	$(BIN)/surgery demo

test: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m "not peers"

test-peers: $(PEERS)/.installed
	$(PEERS)/bin/python -m pytest -q -n auto --dist worksteal -m peers

bench: $(PEERS)/.installed
	$(PEERS)/bin/python -m compileall -q surgery
	$(PEERS)/bin/python -m bench

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

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
