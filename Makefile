# `make test` and `make demo` set a fresh machine up by themselves: Python 3.10 or later and make are enough.
BASE_PYTHON ?= python3
VENV ?= .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip install --disable-pip-version-check --quiet --constraint constraints.txt
TESTED := $(VENV)/.installed-dev
SHOWN := $(VENV)/.installed-all
DOCS := $(VENV)/.installed-docs

.DEFAULT_GOAL := help
.PHONY: help venv test demo lint dist docs clean

help:
	@echo "make venv   set up $(VENV) with everything that tests and checks need"
	@echo "make test   run all tests"
	@echo "make demo   the whole house on built-in data; writes runs/demo/report.html"
	@echo "make lint   ruff, pyright and the import contracts"
	@echo "make dist   wheel and source archive in dist/"
	@echo "make docs   the documentation, in build/docs"
	@echo "make clean  remove $(VENV), caches and builds (runs/ stays)"
	@echo "BASE_PYTHON=python3.12 chooses the interpreter, VENV=folder the environment."

venv: $(TESTED)

test: $(TESTED)
	$(PYTHON) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

demo: $(SHOWN)
	$(PYTHON) -m deploy.demo --out runs/demo

lint: $(TESTED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright --pythonpath $(PYTHON)
	$(VENV)/bin/lint-imports

# From a copy of what git tracks, so that no leftover of an earlier build comes along.
dist: $(VENV)/pyvenv.cfg
	$(PIP) build
	rm -rf build dist
	mkdir -p build/source
	git ls-files -z | xargs -0 cp --parents --target-directory build/source
	$(PYTHON) -m build --outdir dist build/source

docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(BASE_PYTHON) -c 'import sys; ok = sys.version_info >= (3, 10); \
	sys.exit(0 if ok else "BASE_PYTHON must be Python 3.10 or later, got " + sys.version.split()[0] + ". Try: make BASE_PYTHON=python3.12")'
	$(BASE_PYTHON) -m venv $(VENV)

# torch first and alone: with its version pinned, a CPU build found beside the index is taken where there is one.
$(VENV)/.torch: $(VENV)/pyvenv.cfg constraints.txt
	$(PIP) torch
	@touch $@

$(TESTED): $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[dev]"
	@touch $@ $(SHOWN)

$(SHOWN): $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[all]"
	@touch $@

$(DOCS): $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[docs]"
	@touch $@
