# `make run` and `make test` do all the set-up on a machine with Python 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml smeconf/hatch_build.py $(wildcard smeconf/cli/scripts/*) \
	$(shell find db templates events)

.PHONY: run test check lint types bench docs fmt clean

run: $(VENV)/installed
	@$(BIN)/smeconf --root $(CURDIR)/.run up --demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest $(TESTS)

check: lint types test

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

bench: $(VENV)/installed-dev
	$(BIN)/python bench/run.py

# What is made from the schema.
docs: $(VENV)/installed
	$(BIN)/python -m smeconf.cli.reference > docs/properties.md

fmt: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .run dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Installing compiles the schema, hence again when the schema changed.
$(VENV)/installed: $(VENV)/bin/python $(SOURCES)
	$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/bin/python $(SOURCES)
	$(PIP) install --editable '.[dev]'
	@touch $@ $(VENV)/installed
