# Every target works on a bare machine: what it needs is installed into .venv first.
#   make demo    the edge half only (no torch), then the embedded model answers questions
#   make setup   everything: training, export, NPU compiler, tests and tools
#   make check   formatting, lint, types          make test    the test suite
#   make smoke   runs/tiny.sh in minutes: the whole chain at toy length
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo setup check test smoke docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.edge
	$(BIN)/autoneural demo

setup: $(VENV)/.all

check: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

test: $(VENV)/.all
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

smoke: $(VENV)/.all
	rm -rf out/smoke
	runs/tiny.sh --smoke out/smoke

docs: $(VENV)/.all
	$(BIN)/python docs/make_cli.py
	$(BIN)/python docs/make_datasheet.py

clean:
	rm -rf $(VENV) build dist out

# The stamps make repeats quick; a change of dependencies installs again.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "autoneural needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	         "Name another one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.edge: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) -e .
	@touch $@

# torch first, so that nothing that depends on it can choose another one.
$(VENV)/.all: $(VENV)/.python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.edge $@
