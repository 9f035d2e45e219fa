# Everything happens in .venv, which is made when it is needed. No root, and no network once it is there.
#
#   make PYTHON=python3.12 test      another interpreter (after `make clean`)
#   make test ARGS='-k lease -x'     more words for pytest, the demo or the benchmarks

PYTHON ?= python3 python3.14 python3.13 python3.12 python3.11
ARGS ?=
# most tests wait for a process or an election: three workers keep two cores busy; make WORKERS=0 test runs them one by one
WORKERS ?= 3

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PROJECTS := pyproject.toml sidecar/pyproject.toml

.PHONY: help demo test lint format bench seeded sim soak clean
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-14s %s\n", $$1, $$2 }'

demo: .venv/.for-demo ## a real etcd cluster, real services and callers, and what they survive
	@$(BIN)/disco demo $(ARGS)

test: .venv/.for-dev ## all tests but the long ones
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

lint: .venv/.for-dev ## ruff (rules and format) and mypy (strict)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy

format: .venv/.for-dev ## let ruff put the code into shape
	@$(BIN)/python -m ruff check --fix-only .
	@$(BIN)/python -m ruff format .

bench: .venv/.for-bench ## the figures, each beside its reference, as a table, JSON and a picture in build/bench
	@$(BIN)/python -m benchmarks $(ARGS)

seeded: .venv/.for-dev ## bugs put in on purpose, and which test catches each
	@$(BIN)/python -m tests.seeded $(ARGS)

sim: .venv/.for-bench ## the simulator: tables and pictures of how balancers do, into build/sim
	@$(BIN)/python -m benchmarks.sim $(ARGS)

soak: .venv/.for-dev ## the long and full-length fault runs
	@$(BIN)/python -m pytest -m soak --timeout 3600 $(ARGS)

clean: ## remove .venv and whatever the tools left
	@rm -rf .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find . -name .git -prune -o -type d -name __pycache__ -exec rm -rf {} +

# --- what is installed, and when ---
# A stamp is touched only after its install went through, and is out of date when a pyproject.toml is newer. Installs
# are editable, so that the stamps stay true when the code changes. Dependency groups need pip 25.1.

.venv/.for-demo: .venv/.made $(PROJECTS)
	@echo "installing what the demo needs into .venv"
	@$(PIP) -e '.[cli,dev-etcd]'
	@touch $@

.venv/.for-dev: .venv/.made $(PROJECTS)
	@echo "installing what tests and lint need into .venv"
	@$(PIP) --upgrade 'pip>=25.1'
	@$(PIP) --group dev -e '.[cli,dev-etcd,http2,otel,prometheus,trio]' -e ./sidecar
	@touch .venv/.for-demo $@

.venv/.for-bench: .venv/.for-dev
	@echo "installing what the benchmarks need into .venv"
	@$(PIP) --group bench
	@touch $@

# Debian's python3 can't put pip into a new environment unless python3-venv is there, but its pip can.
.venv/.made:
	@set -e; \
	for name in $(PYTHON); do \
	    if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$name; break; fi; \
	done; \
	if [ -z "$${python:-}" ]; then \
	    echo "discoclient needs Python 3.11 or newer, and none of these is one: $(PYTHON)." >&2; \
	    echo "Say which to take: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	    exit 1; \
	fi; \
	echo "making .venv with $$("$$python" --version) ($$python)"; \
	rm -rf .venv; \
	if "$$python" -c 'import ensurepip' >/dev/null 2>&1; then \
	    "$$python" -m venv .venv; \
	else \
	    "$$python" -m venv --without-pip .venv; \
	    "$$python" -m pip --disable-pip-version-check --python .venv/bin/python install --quiet pip; \
	fi; \
	touch $@
