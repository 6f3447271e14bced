# On a fresh machine with only Python: `make run` and `make test` make everything they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config/gateway.yaml
OUTCOMES ?= ../shared/data/outcomes

.PHONY: help run test slow chaos check lint format bench evaluate clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The stamp is older than the files only if the environment has to change with them.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tollgate needs Python 3.11 or newer; try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

run: $(VENV)/.installed  ## the gateway on 127.0.0.1:8080, with a simulated provider and no key needed
	$(BIN)/tollgate serve --config $(CONFIG)

test: $(VENV)/.installed  ## every test but the slow ones
	$(BIN)/python -m pytest -q -m 'not slow'

slow: $(VENV)/.installed  ## the tests that take long
	$(BIN)/python -m pytest -q -m slow

chaos: $(VENV)/.installed  ## four gateways, one Redis, and everything that breaks; renews the table in docs/reliability.md
	$(BIN)/python tests/support/chaos.py --write docs/reliability.md

lint: $(VENV)/.installed  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed  ## rewrites the sources as lint wants them
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .

check: lint test  ## what must hold before a change is merged

bench: $(VENV)/.installed  ## what it costs; each file in bench/ prints its own report
	@for each in bench/*.py; do echo "== $$each"; $(BIN)/python $$each || exit 1; done

evaluate: $(VENV)/.installed  ## docs/routing.md anew from recorded outcomes; EMBEDDINGS=dir adds an ONNX model
	$(BIN)/python -m router_policies.difficulty.evaluation.proof $(OUTCOMES) docs/routing.md $(EMBEDDINGS)

clean:  ## back to the sources
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
