# Each target makes .venv when there is none; PYTHON says from which interpreter.
PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist=worksteal
BENCH ?= latency
CUDA ?= cuda12
SECONDS ?= 60
SEEDS ?= 100000
FIRST ?= 0

VENV := .venv
BIN := $(VENV)/bin
PROJECT := setup.cfg setup.py pyproject.toml
# most of what is installed is never imported, and what is gets compiled then
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check \
  --no-compile
CHECK_VERSION := import sys; sys.exit(sys.version_info < (3, 11))

.PHONY: help demo test test-gpu soak chaos fuzz lint docs screenshots bench peers config clean
.DEFAULT_GOAL := help

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-muser  ## an embedded cluster counts words and makes UVFITS files
	$(BIN)/opencluster demo

test: $(VENV)/.installed-test  ## run the tests (PYTEST_ARGS="..." to choose)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed-test $(VENV)/.installed-$(CUDA)  ## run what needs a GPU
	$(BIN)/python -m pytest -n 0 tests/gpu

soak: $(VENV)/.installed-test  ## simulate many clusters (SEEDS=100000, from FIRST=0)
	$(BIN)/python tests/simulation/soak.py $(SEEDS) --first $(FIRST)

chaos: $(VENV)/.installed-test  ## kill, cut off and stop real processes (SECONDS=60)
	CHAOS_SECONDS=$(SECONDS) $(BIN)/python -m pytest -n 0 -p no:randomly tests/chaos

lint: $(VENV)/.installed-test  ## check style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-docs  ## make the pages of docs/ in build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

screenshots: $(VENV)/.installed-test  ## pictures of all pages in build/screenshots
	$(BIN)/python tests/browser/screenshots.py build/screenshots

bench: $(VENV)/.installed  ## measure (BENCH=latency, all, compare, targets, ...)
	$(BIN)/python -m bench $(BENCH)

peers: $(VENV)/.installed-bench  ## install what OpenCluster is compared with
	$(BIN)/python -m bench peers

fuzz: $(VENV)/.installed-test  ## feed wrong messages to every handler (SECONDS=600)
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(SECONDS)

config: $(VENV)/.installed  ## write config.ini and docs/configuration.md anew
	$(BIN)/python -c "from opencluster.config import *; \
	open('opencluster/config.ini', 'w').write(render_default()); \
	open('docs/configuration.md', 'w').write(render_reference())"

clean:  ## remove .venv, caches and builds
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c '$(CHECK_VERSION)' || { \
	  echo "OpenCluster needs Python 3.11 or later, but $(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1 || true);" \
	    "name another one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "no virtual environment could be made; on Debian and Ubuntu" \
	    "the package python3-venv is needed for it" >&2; exit 1; }

$(VENV)/.installed: $(BIN)/python $(PROJECT)
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-%: $(BIN)/python $(PROJECT)
	$(PIP_INSTALL) -e '.[$*]'
	@touch $(VENV)/.installed $@
