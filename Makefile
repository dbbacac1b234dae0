# The front door. `make quickstart` shows the main job, `make test` proves the rest; both set up what they need.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CTL    := $(BIN)/cinderctl
HELLO  := examples/hello-world
STAMP  := $(VENV)/.installed

.PHONY: help setup quickstart quickstart-clean test e2e check docs bench lock clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## the environment, from the lock file

$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cinderctl needs Python 3.11 or newer; set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

quickstart: setup  ## a cluster with wasm nodes, and a WebAssembly pod on it
	@CTL=$(CTL) $(HELLO)/quickstart.sh

quickstart-clean: setup  ## destroy what quickstart made
	@$(CTL) destroy -f $(HELLO)/cluster.yaml --auto-approve

test: setup  ## unit tests, then the suite on a real control plane
	$(BIN)/pytest tests/unit tests/packaging
	$(CTL) binaries fetch
	$(BIN)/pytest tests/e2e

check: setup  ## formatting, lints, types, layers, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict --quiet

docs: setup  ## build the documentation into site/
	$(BIN)/mkdocs build --strict

bench: setup  ## speed and memory beside a peer; writes docs/benchmarks.md
	$(CTL) binaries fetch
	$(BIN)/python benchmarks/run.py

lock:  ## rewrite the lock files from pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --extra dev --all-build-deps -o requirements-dev.lock pyproject.toml
	$(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -c requirements-dev.lock -o requirements.lock pyproject.toml

clean:  ## remove what make made in the checkout
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist site
