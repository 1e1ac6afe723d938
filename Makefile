SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-all tiny rehearse test lint backbone clean

PYTHON ?= python3
CORES ?= $(shell nproc)
BIN := .venv/bin
# One run at a time. The lock is gone with the processes that hold it, so a run that was killed leaves none behind.
ALONE := flock --nonblock --conflict-exit-code 75 Makefile

help:
	@echo "make setup     install into .venv what everything here needs"
	@echo "make demo      raw text to a Table 1 on this machine, in minutes"
	@echo "make demo-all  the same with all methods and three seeds, in about an hour"
	@echo "make tiny      the same with small models of our own, without downloads"
	@echo "make rehearse  the paper's plan in miniature, with an imitation of the hub; TARGET=results/tables/table1.md: a part"
	@echo "make test      all tests"
	@echo "make lint      all linters"
	@echo "make backbone  pretrain tiny's language models again (up to two hours)"
	@echo "make clean     remove what demo and tiny made"

# Where this is set, as in many containers, each job compiles all that it imports: seconds, for hundreds of jobs.
unexport PYTHONDONTWRITEBYTECODE

BUSY := || { code=$$?; test $$code != 75 || echo "another run is at work here: wait for it, or end it" >&2; exit $$code; }

INSTALL = $(BIN)/pip install --disable-pip-version-check --no-compile --constraint constraints.txt

# The demo needs the first alone, tests and linters both.
setup: .venv/installed .venv/installed-dev

# torch first and by its exact version; the rest is resolved around it.
.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, for example: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable '.[paper]'
	touch $@

.venv/installed-dev: .venv/installed
	$(INSTALL) --editable '.[dev]'
	touch $@

# A scale's configuration is config/SCALE.yaml, its results are in results/SCALE.
demo tiny: .venv/installed
	@$(ALONE) $(BIN)/revela reproduce config/$@.yaml --cores $(CORES) $(BUSY)

demo-all: .venv/installed
	@$(ALONE) $(BIN)/revela reproduce config/demo.yaml all results/demo/tables/{all,seeds}{1,6,7}.md \
		results/demo/figures/{figure3,same_document_control}.pdf --cores $(CORES) $(BUSY)

rehearse: setup
	$(BIN)/python tests/hub/rehearse.py --cores $(CORES) $(TARGET)

test: setup
	$(BIN)/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/python tests/lint_workflow.py
	$(BIN)/python tests/lint_workflow.py --configfile config/tiny.yaml
	$(BIN)/python tests/lint_workflow.py --configfile config/demo.yaml

backbone: .venv/installed
	$(ALONE) $(BIN)/snakemake --nolock --profile workflow/profiles/local --configfile config/tiny.yaml \
		--cores $(CORES) --quiet host reason -- backbones $(BUSY)
	rm -rf resources/backbones && mkdir resources/backbones && cp -r results/tiny/backbones/tiny-* resources/backbones/ && rm resources/backbones/*/.snakemake_timestamp

clean:
	rm -rf results/demo results/tiny .pytest_cache .ruff_cache .hypothesis
