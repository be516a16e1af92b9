# `make demo` runs the quickstart, `make test` the checks for every change, `make test-all` all of them, `make docs` builds
# the documentation as a site in site/, `make notebooks` the tutorials as notebooks in notebooks/. Each makes the virtual
# environment that it needs; the stamp files in it say what is installed, so that a second call starts at once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# A file's tests share fixtures, so a worker takes whole files, in the order of tests/conftest.py. Tensors are small here: a
# thread for each core would make workers wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Python 3.12 and later say which lines are new; before, every line of every library is asked about, for half of the time again.
COVERAGE := COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")')
PACKAGES := . ./plugins/tzk-plugin-omniglot ./plugins/tzk-plugin-outside ./plugins/tzk-plugin-few-shot \
  ./plugins/tzk-plugin-report ./plugins/tzk-plugin-kit
SOURCES := pyproject.toml $(shell find tzk_core plugins -name build -prune -o \( -name '*.py' -o -name pyproject.toml \) -print)

.PHONY: demo test test-all lint docs notebooks clean

demo: $(VENV)/demo.stamp
	$(BIN)/tzk run examples/quickstart.toml

test: lint
	$(PYTEST) -m 'not slow'

test-all: lint
	$(COVERAGE) $(PYTEST) --cov --cov-report=term --durations=20

lint: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/docs.stamp
	$(BIN)/mkdocs build --strict

notebooks: $(VENV)/python.stamp
	$(BIN)/python docs/site/notebooks.py notebooks

clean:
	rm -rf $(VENV) site notebooks build *.egg-info plugins/*/build plugins/*/*.egg-info

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	  f"TzK needs Python 3.11 or later, and this is {v[0]}.{v[1]}: name another one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# setuptools packs whatever an earlier build left in build/, modules since removed included: clear it first.
$(VENV)/demo.stamp: $(VENV)/python.stamp $(SOURCES)
	rm -rf build plugins/*/build
	$(BIN)/python -m pip install $(PACKAGES)
	touch $@

$(VENV)/docs.stamp: $(VENV)/python.stamp $(SOURCES)
	rm -rf build plugins/*/build
	$(BIN)/python -m pip install '.[docs]' ./plugins/*/
	touch $@

$(VENV)/test.stamp: $(VENV)/python.stamp $(SOURCES)
	rm -rf build plugins/*/build
	$(BIN)/python -m pip install '.[dev]' ./plugins/*/
	touch $@
