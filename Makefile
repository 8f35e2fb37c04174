# `make help` lists what there is. Needs git, make and Python 3.11 or later; nothing else.
# PYTHON=... picks the interpreter that the environment is made with.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell for candidate in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	command -v $$candidate >/dev/null 2>&1 || continue; \
	$$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	    >/dev/null 2>&1 && echo $$candidate && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
SOURCES := pyproject.toml constraints.txt
# As many files as there are cores go side by side, in the order of tests/conftest.py.
PYTEST_ARGS ?= --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: help
help:  ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: $(VENV)/.installed  ## Materialise every notebook through Dagster and show what came of it
	@$(BIN)/research-jobs run --all

.PHONY: ui
ui: $(VENV)/.installed  ## Dagster's UI, its daemon and the reports, until Ctrl-C
	@$(BIN)/research-jobs ui

.PHONY: test
test: $(VENV)/.installed-dev  ## Formatting, lint, types, layers, then the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: $(VENV)/.installed-dev  ## The tests that need no server, browser or process of their own
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow and not servers and not browser and not postgres"

.PHONY: verify
verify: test bench  ## What is too long for each change: all tests, also on the oldest Dagster, and benchmarks
	@$(PYTHON) tests/support/other_dagster.py 1.12.0

.PHONY: test-dagster
test-dagster:  ## The tests with another Dagster: VERSION=1.12.0, TESTS=tests/orchestration
	@test -n "$(VERSION)" || { echo "Say which: make test-dagster VERSION=1.12.0" >&2; exit 1; }
	@$(PYTHON) tests/support/other_dagster.py $(VERSION) $(TESTS)

.PHONY: test-cgroup
test-cgroup: $(VENV)/.installed-dev  ## Memory limits held by a kernel (needs user-mode-linux)
	@$(BIN)/python tests/support/in_uml.py

.PHONY: bench
bench: $(VENV)/.installed-bench  ## Side by side with the peers, on this machine
	@$(BIN)/python -m benchmarks

.PHONY: fix
fix: $(VENV)/.installed-dev  ## Format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: install
install: $(VENV)/.installed-dev  ## The environment alone

.PHONY: screenshots
screenshots: $(VENV)/.installed-dev  ## Take the pictures in docs/images anew (needs Chromium)
	@$(BIN)/python docs/images/take.py

.PHONY: constraints
constraints:  ## Find the newest versions that go together, in a fresh environment
	rm -rf .research_jobs/constraints && $(PYTHON) -m venv .research_jobs/constraints
	.research_jobs/constraints/bin/pip install --quiet --upgrade pip
	.research_jobs/constraints/bin/pip install --quiet -e '.[samples,extras]' --group dev --group bench
	echo "# What the tests were run with: names and versions only. Made by 'make constraints'." > constraints.txt
	.research_jobs/constraints/bin/pip list --exclude-editable --format=freeze \
		| grep -iv '^setuptools==' | sort -f >> constraints.txt
	rm -rf .research_jobs/constraints

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later (with venv) on PATH: install one, or say PYTHON=/path/to/python." >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# Each stamp is younger than what it was made from, so the second time costs nothing.
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	@echo "Installing (a minute or two, once)"
	@$(PIP) install --upgrade --constraint constraints.txt pip
	@$(PIP) install --constraint constraints.txt --editable '.[samples,extras]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need"
	@$(PIP) install --constraint constraints.txt --group dev
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "Installing the peers"
	@$(PIP) install --constraint constraints.txt --group bench
	@touch $@
