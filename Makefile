# On a fresh machine with only Python: `make run` and `make test` make everything they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config/gateway.yaml
OUTCOMES ?= ../shared/data/outcomes

# What one process compiled the hundred others of the tests need not compile again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help run test slow works chart lock audit sbom docs chaos check lint format bench evaluate clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tollgate needs Python 3.11 or newer; try: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip  # an old one takes twice as long

# A stamp is older than the files only if the environment has to change with them.
$(VENV)/.runs: pyproject.toml constraints.txt | $(BIN)/python  # what serves, and nothing to develop with
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[difficulty]'
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	touch $@ $(VENV)/.runs

run: $(VENV)/.runs  ## the gateway on 127.0.0.1:8080, with a simulated provider and no key needed
	$(BIN)/tollgate serve --config $(CONFIG)

test: $(VENV)/.installed  ## every test but the slow ones
	$(BIN)/python -m pytest -q -m 'not slow' --numprocesses 2 --dist loadscope

slow: $(VENV)/.installed  ## the tests that take long
	$(BIN)/python -m pytest -q -m slow

RELEASE := $(VENV)/.release
$(RELEASE): $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt '.[release]'
	touch $@

lock: $(RELEASE)  ## requirements.lock anew: what the image installs, with hashes
	$(BIN)/pip-compile --quiet --constraint constraints.txt --extra aws --extra google --extra azure --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --strip-extras --no-annotate --no-header \
		--output-file requirements.lock pyproject.toml

audit: $(RELEASE)  ## known weaknesses of what is locked; fails too if the service that knows them cannot be asked
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

sbom: $(RELEASE)  ## what is in the image, as CycloneDX, in build/sbom.json
	mkdir -p build
	$(BIN)/cyclonedx-py requirements requirements.lock --output-reproducible --of JSON --output-file build/sbom.json

works: $(VENV)/.installed  ## other people's clients against a gateway: installs them in a cache of their own
	$(BIN)/python -m pytest -q tests/system/test_works_with.py

chart: $(VENV)/.installed  ## the chart, rendered by helm and held against Kubernetes' schemas: fetches both into a cache
	$(BIN)/python tests/support/chart.py
	$(BIN)/python -m pytest -q tests/system/test_chart.py tests/unit/test_deployment_files.py

docs: $(VENV)/.installed  ## the documentation as a site in build/site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir build/site

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

bench: $(VENV)/.installed  ## what it costs beside others, within ten minutes; PARTS="stages soak" for some of it
	$(BIN)/python -m bench $(PARTS)

evaluate: $(VENV)/.installed  ## docs/routing.md anew from recorded outcomes; EMBEDDINGS=dir adds an ONNX model
	$(BIN)/python -m router_policies.difficulty.evaluation.proof $(OUTCOMES) docs/routing.md $(EMBEDDINGS)

clean:  ## back to the sources
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
