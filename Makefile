# Two commands are all a newcomer needs: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TESTS  ?= tests

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo flights test check machine slow soak bench protos docs lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

$(BIN)/uv:
	$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); sys.exit(0 if ok else "headrace needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: $(BIN)/uv requirements.lock pyproject.toml
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@

install: $(VENV)/.installed  ## install headrace into .venv
install-dev: $(VENV)/.installed-dev  ## install what tests and checks need, too

demo: install  ## see a model stay fresh on a live feed (Ctrl-C ends it)
	$(BIN)/headrace demo

flights: install  ## see retraining pay off on the flights of 2013 (about 3 minutes)
	$(BIN)/headrace backtest --example flights --every frozen,7d,1d

test: install-dev  ## the tests that every change must pass (at most 6 minutes)
	$(BIN)/pytest -n 2 --dist loadgroup -m "not slow" --durations=15 $(TESTS)

check: install-dev  ## linters, types, import contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	tests/generated.sh $(BIN)/python

machine: install-dev  ## as root on Debian: what some tests need and pip cannot install (promtool, podman, a Debian)
	tests/machine.sh $(VENV)

slow: install-dev  ## the reduced kill and damage loops; every page followed
	$(BIN)/pytest -m slow --durations=10 tests/loop
	$(BIN)/pytest -n 2 --dist loadgroup -m slow --durations=10 --ignore=tests/loop tests

soak: install-dev  ## the full counts; writes benchmarks/results
	$(BIN)/python benchmarks/soak.py

bench: install-dev  ## every benchmark; writes benchmarks/results
	$(BIN)/python benchmarks/run.py

protos: install-dev  ## compile protos/*.proto
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. protos/*.proto

docs: install-dev  ## write the pages of docs/ that are made of the code
	$(BIN)/python docs/generate.py

lock:  ## resolve the dependencies anew
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --extra flights pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --all-extras --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:  ## remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
