.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
MEMBERS := shared/kernel shared/channels services/ingress services/router services/channel-adapter \
  services/callback-delivery services/simulator services/standalone
MANIFESTS := pyproject.toml $(MEMBERS:%=%/pyproject.toml)
NAMES := switchboard switchboard-channels switchboard-ingress switchboard-router switchboard-channel-adapter \
  switchboard-callback-delivery switchboard-simulator switchboard-standalone switchboard-workspace
COMPILE := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet

.PHONY: help setup run demo test test-all bench fmt lint types schemas lock check clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## Install everything that is locked, and the members in place

$(VENV)/.ready: locks/bootstrap.txt locks/dev.txt $(MANIFESTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes locks/dev.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(MEMBERS:%=-e %)
	touch $@

run: setup ## Start everything, send a first message, show phone and callback, stay until Ctrl-C
	$(BIN)/switchboard run

demo: setup ## The same as run, but ends after the callback
	$(BIN)/switchboard run --once

test: setup ## Every test but the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-all: setup ## Every test, slow fault and load runs included
	$(BIN)/python -m pytest

bench: setup ## Measure; figures go to docs/explanation/performance.md
	$(BIN)/python -m tests.benchmarks

fmt: setup ## Format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lint: setup ## Style and import contracts
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/lint-imports --no-cache

types: setup ## mypy, strict
	$(BIN)/mypy $(MEMBERS:%=%/src) tests

schemas: setup ## Generate schemas/ from the code
	$(BIN)/python -m switchboard_standalone.schemas

lock: $(BIN)/python ## Resolve the dependencies anew, by name, version and hash
	echo uv | $(UV) pip compile - $(COMPILE) --upgrade -o locks/bootstrap.txt
	$(UV) pip compile $(MANIFESTS) --all-extras --group dev $(COMPILE) --upgrade $(NAMES:%=--no-emit-package %) -o locks/dev.txt

check: lint types schemas-check test demo ## All that CI runs

.PHONY: schemas-check
schemas-check: setup
	$(BIN)/python -m switchboard_standalone.schemas --check

clean: ## Remove what setup made
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis
