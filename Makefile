# `make help` lists the targets. Needs only git, make and Python 3.11 or later.
# PYTHON=... selects the interpreter for the environment.

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
# Twice as many test files as there are cores at a time, in the order of tests/conftest.py: many wait for
# services.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN || echo 1) \* 2)
PYTEST_ARGS ?= --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help
help:  ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: run
run: $(VENV)/.installed  ## Materialise every notebook through Dagster and print the outcomes
	@$(BIN)/research-jobs run --all

.PHONY: ui
ui: $(VENV)/.installed  ## Dagster's UI, its daemon and the reports, until Ctrl-C
	@$(BIN)/research-jobs ui

.PHONY: test
test: $(VENV)/.installed-dev  ## Check formatting, lint, types and import layers, then run the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not long"

.PHONY: test-long
test-long: $(VENV)/.installed-dev  ## Run the tests that `make test` leaves out: more cases of deployments, alerts, a soak
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m long

.PHONY: test-fast
test-fast: $(VENV)/.installed-dev  ## Run the tests that need no server, browser or process of their own
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow and not servers and not browser and not postgres"

.PHONY: verify
verify: test test-long docs test-wheel bench simulate test-index  ## Run what takes too long for each change: the site, the oldest Dagster, benchmarks
	@$(PYTHON) tests/support/other_dagster.py 1.12.0

.PHONY: test-index
test-index: $(VENV)/.installed-dev  ## Run a notebook with another pandas beside the project's (downloads it)
	@RESEARCH_JOBS_TEST_INDEX=1 $(BIN)/python -m pytest tests/environments/test_index.py

.PHONY: simulate
simulate: $(VENV)/.installed-dev  ## Simulate 1,000 years of a server (YEARS=...), or replay one (SEED=17)
	@PYTHONPATH=tests/support $(BIN)/python -m simulator --years $(or $(YEARS),1000) $(if $(SEED),--seed $(SEED))

.PHONY: test-dagster
test-dagster:  ## Run the tests with another Dagster: VERSION=1.12.0 or newest, TESTS=tests/orchestration
	@test -n "$(VERSION)" || { echo "Name the version: make test-dagster VERSION=1.12.0" >&2; exit 1; }
	@$(PYTHON) tests/support/other_dagster.py $(VERSION) $(TESTS)

.PHONY: test-cgroup
test-cgroup: $(VENV)/.installed-dev  ## Test the kernel's memory limits (needs user-mode-linux)
	@$(BIN)/python tests/support/in_uml.py

.PHONY: test-systemd
test-systemd:  ## Boot a systemd, interrupt every service in every order (root, debootstrap; half an hour)
	@$(PYTHON) tests/support/in_systemd.py $(ARGS)

.PHONY: test-install
test-install:  ## Boot a Debian 12, install a server in it, upgrade it, roll it back (root, debootstrap)
	@$(PYTHON) tests/support/in_install.py $(ARGS)

.PHONY: test-wheel
test-wheel:  ## Build wheel and sdist, install and use each in an empty environment: ARGS=python3.12 ...
	@$(PYTHON) tests/support/in_wheel.py $(ARGS)

.PHONY: test-celery
test-celery: $(VENV)/.installed-dev  ## Spread steps over two workers by dagster-celery and a real Redis (root)
	@$(BIN)/python tests/support/in_celery.py $(ARGS)

.PHONY: test-clouds
test-clouds: $(VENV)/.installed-dev  ## Test the store against Ceph and emulators of Azure and Google Cloud: ARGS=ceph
	@$(BIN)/python tests/support/in_clouds.py $(ARGS)

.PHONY: test-containers
test-containers: $(VENV)/.installed-dev  ## Check the compose file and the Helm values (root; starts nothing)
	@$(BIN)/python tests/support/in_containers.py

.PHONY: soak
soak: $(VENV)/.installed-dev  ## Disturb everything over real services for 20 minutes: ARGS="--minutes N --seed N"
	@$(BIN)/python tests/support/soak.py $(ARGS)

.PHONY: blame
blame: $(VENV)/.installed-dev  ## Change 20 notebooks in 200 ways and ask `diff` why: ARGS="--rounds N --seed N"
	@$(BIN)/python tests/support/blaming.py $(ARGS)

.PHONY: rerun-check
rerun-check: $(VENV)/.installed-dev  ## Change 50 notebooks and the samples, rerun their past runs: ARGS="--seed N"
	@$(BIN)/python tests/support/rerunning.py $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed-bench  ## Benchmark against other tools, on this machine
	@$(BIN)/python -m benchmarks

.PHONY: fix
fix: $(VENV)/.installed-dev  ## Format, and apply automatic lint fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: install
install: $(VENV)/.installed-dev  ## Create the environment

.PHONY: install-server
install-server: $(VENV)/.installed-server  ## Create an environment for a server (VENV=...): no developers' packages

.PHONY: screenshots
screenshots: $(VENV)/.installed-dev  ## Retake the screenshots in docs/images (needs Chromium)
	@$(BIN)/python docs/images/take.py

.PHONY: docs
docs: $(VENV)/.installed-docs  ## Build the documentation as a site, in build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo build/site/index.html

.PHONY: docs-serve
docs-serve: $(VENV)/.installed-docs  ## Show the site at http://127.0.0.1:8000, until Ctrl-C
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

.PHONY: constraints
constraints:  ## Pin the newest versions that work together, in a fresh environment
	rm -rf .research_jobs/constraints && $(PYTHON) -m venv .research_jobs/constraints
	.research_jobs/constraints/bin/pip install --quiet --upgrade pip
	.research_jobs/constraints/bin/pip install --quiet -e '.[samples,extras]' --group dev --group bench --group docs
	echo "# The versions that the tests ran with. Made by 'make constraints'." > constraints.txt
	.research_jobs/constraints/bin/pip list --exclude-editable --format=freeze \
		| grep -iv '^setuptools==' | sort -f >> constraints.txt
	rm -rf .research_jobs/constraints

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later (with venv) on PATH: install one, or set PYTHON=/path/to/python." >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# A stamp is newer than what it depends on, so installing again does nothing.
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	@echo "Installing (once, a minute or two)"
	@$(PIP) install --upgrade --constraint constraints.txt pip
	@$(PIP) install --constraint constraints.txt --editable '.[samples,extras]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need"
	@$(PIP) install --constraint constraints.txt --group dev
	@touch $@

# What the notebooks import is in requirements.txt; the samples' packages stand in for it.
REQUIREMENTS := $(wildcard requirements.txt)
$(VENV)/.installed-server: $(SOURCES) $(REQUIREMENTS) | $(BIN)/python
	@$(PIP) install --upgrade --constraint constraints.txt pip
	@$(PIP) install --constraint constraints.txt --editable \
		$(if $(REQUIREMENTS),. --requirement $(REQUIREMENTS),'.[samples]')
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	@echo "Installing what the site needs"
	@$(PIP) install --constraint constraints.txt --group docs
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	@echo "Installing the tools to compare with"
	@$(PIP) install --constraint constraints.txt --group bench
	@touch $@
