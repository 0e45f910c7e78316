# Every target sets up what it needs: a fresh checkout needs Python 3.11 or newer, make, and nothing else.
# Options go through ARGS, e.g. `make up ARGS="--port 3100"`, `make test ARGS="tests/bus -x"`.

PYTHON ?= python3.11 python3.12 python3.13 python3 python
ARGS ?=
# Tests run in this many processes, each with servers of its own; 0 is none but the one. They mostly wait, for ack times
# and elections, so one more than the two cores that they are made for.
WORKERS ?= 3
# Files go out as they come, in random order but for the longest: by their number of tests, these would all be last.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

SUITABLE = import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
NO_PYTHON = Python 3.11 or newer with venv is needed, and not found as any of: $(PYTHON). Install it (Debian, Ubuntu: \
  apt install python3 python3-venv), or name yours: make setup PYTHON=/path/to/python3

# What a user's shell has set for another project must not steer this one.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: demo up test lint bench chaos setup lock help moved

demo: setup ## run a three-step drip campaign from a CSV of 500 people, show it live, exit
	@$(BIN)/python -m harkara demo $(ARGS)

up: setup ## run the whole platform here: front door on :3000, sandbox WhatsApp gateway on :3001
	@$(BIN)/python -m harkara up $(ARGS)

test: setup ## run the whole test suite against real servers
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

# basedpyright is pyright packaged whole, with its runtime, as a wheel; the `pyright` package fetches its parts when first run.
lint: setup ## check style and types: ruff, mypy, basedpyright
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m basedpyright

bench: setup ## measure start, latency and throughput on this machine
	@$(BIN)/python -m bench $(ARGS)

chaos: setup ## kill servers and processes at random while campaigns run, count what is lost or doubled; then fuzz the API at length
	@$(BIN)/python -m pytest tests/chaos tests/live/test_processes.py tests/live/test_phones.py tests/http/test_away.py \
	  tests/http/test_schemathesis.py -m "" $(ARGS)

setup: $(READY) ## make .venv with everything in it (the targets above do this themselves)

# The file holds the directory it was made for: a checkout that was moved or copied is set up again.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
$(READY): moved
endif

$(READY): constraints.txt pyproject.toml
	@for python in $(PYTHON); do "$$python" -c '$(SUITABLE)' 2>/dev/null && break; done && \
	"$$python" -c '$(SUITABLE)' 2>/dev/null || { echo '$(NO_PYTHON)' >&2; exit 1; }; \
	echo "Setting up $(VENV) with $$("$$python" --version) …" && \
	"$$python" -m venv $(VENV) || { echo 'cannot make $(VENV): delete it and try again' >&2; exit 1; }
	@echo "Installing $$(grep -c '==' constraints.txt) pinned packages, every one checked against its hash …"
	@$(BIN)/python -m pip install -qq --only-binary :all: --no-deps --require-hashes -r constraints.txt || \
	  { echo "the packages could not be installed: see the lines above; the next make continues here" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e .
	@printf '%s\n' '$(CURDIR)' > $@
	@echo "Ready."

lock: ## (maintainers) write constraints.txt anew from pyproject.toml; needs uv
	@command -v uv >/dev/null || { echo "uv is needed to resolve the lock: pip install uv" >&2; exit 1; }
	@uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --all-extras --upgrade --generate-hashes \
	  --no-header --no-annotate --output-file constraints.txt

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
