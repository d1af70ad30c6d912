# Every target sets up what it needs, from a fresh clone, in virtual environments inside the checkout.

PYTHON ?= python3
WORKERS ?= auto
# One thread in each of the test processes, or they fight over the cores.
ONE_THREAD = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

VENV = .venv
OLDEST = .venv-oldest
BENCH = .venv-bench
ORACLES = .venv-oracles
BIN = $(VENV)/bin
comma := ,
CODE = $(wildcard skhyper tests examples benchmarks docs)

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit doctest test-oldest oracles docs bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# install VENV CONSTRAINTS EXTRAS: the stamp file keeps a second call from installing again.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=...")'
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check -c $(2) -e '.[$(3)]'
	@touch $@
endef

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call install,$(VENV),constraints.txt,test$(comma)plot$(comma)progress)

$(VENV)/.installed-docs: $(VENV)/.installed
	$(call install,$(VENV),constraints.txt,docs)

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	$(call install,$(OLDEST),constraints-oldest.txt,test$(comma)plot$(comma)progress)

$(BENCH)/.installed: pyproject.toml constraints.txt
	$(call install,$(BENCH),constraints.txt,bench)

$(ORACLES)/.installed: pyproject.toml constraints.txt
	$(call install,$(ORACLES),constraints.txt,oracles)

demo: $(VENV)/.installed  ## tune a real data set beside GridSearchCV and RidgeCV; print a table, save a figure
	$(BIN)/python examples/demo.py

test: lint unit doctest  ## everything that must pass: lint, types, import contracts, tests, doctests

lint: $(VENV)/.installed  ## style, spelling, types of the core, import contracts
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.installed  ## the tests alone; WORKERS=0 runs them in one process
	$(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses=8 tests

doctest: $(VENV)/.installed  ## the examples in the docstrings
	$(ONE_THREAD) $(BIN)/python -m pytest --doctest-modules skhyper

test-oldest: $(OLDEST)/.installed  ## the tests with the oldest supported versions
	$(ONE_THREAD) $(OLDEST)/bin/python -m pytest -n $(WORKERS) --maxprocesses=8 tests

oracles: $(ORACLES)/.installed  ## the tests against glum and adelie, in an environment that has them
	$(ONE_THREAD) $(ORACLES)/bin/python -m pytest -n $(WORKERS) --maxprocesses=8 tests/oracles

docs: $(VENV)/.installed-docs  ## the documentation, in docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(BENCH)/.installed  ## install the peers that benchmarks compare with, and list the benchmarks
	@echo "SKHYPER_DATA=FOLDER reads the data sets from a folder; unset, all but the splits of uci come from OpenML. The benchmarks:"
	@for f in $$(grep -l __main__ benchmarks/*.py); do echo "  $(BENCH)/bin/python -m benchmarks.$$(basename $$f .py)"; done

clean:  ## remove what was built, the environments too
	rm -rf $(VENV) $(OLDEST) $(BENCH) $(ORACLES) build dist *.egg-info docs/_build docs/auto_examples docs/generated docs/sg_execution_times.rst outputs
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +
