# `make demo` and `make test` do all set-up themselves: an environment in .venv, the install, the run.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check bench clean

demo: $(VENV)/core
	$(BIN)/gramian demo

test: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

# Two variables that some machines set make OpenBLAS use the code of another processor.
MEASURE := env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python benchmarks
SETS := $(if $(QUICK),--quick) $(if $(ML100K),--ml-100k $(ML100K)) $(if $(GOODBOOKS),--goodbooks $(GOODBOOKS)) \
	$(if $(MOVIETWEETINGS),--movietweetings $(MOVIETWEETINGS))

bench: $(VENV)/dev
	$(MEASURE)/speed.py $(SETS)
	$(MEASURE)/cycles.py $(SETS)
	$(MEASURE)/compare.py $(SETS)
	$(MEASURE)/growth.py $(SETS)
	$(MEASURE)/checks.py $(SETS)
	$(MEASURE)/bayes.py $(SETS)
	$(MEASURE)/judge.py $(SETS)
	$(MEASURE)/tuned.py $(SETS)
	$(MEASURE)/gradient.py $(SETS)
	$(MEASURE)/networks.py $(SETS)
	$(MEASURE)/run.py $(SETS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; say which with PYTHON=…") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/core: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable .
	@touch $@

$(VENV)/dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/core

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache gramian-demo
