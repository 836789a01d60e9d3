# Thin on purpose: each line is a command anyone could type. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := pytest
NATIVE := hatch_build.py hatch_frontend.py $(wildcard sandbox_nb/guest/agent/* sandbox_nb/notebook/frontend/src/*)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo lab test coverage soak check format protos docs bench bench-peers bench-terminal \
  screenshots binder-check clean

help:            ## this list
	@sed -nE 's/^([a-z-]+): .*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(VENV)/.setup ## what the demo needs: system packages when missing, .venv, guest image

setup-dev: $(VENV)/.setup-dev ## what the tests need on top: browser, Go, network and disk tools

$(VENV)/.setup: pyproject.toml scripts/system-packages $(NATIVE)
	scripts/system-packages run
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python scripts/install.py lab,pool
	$(BIN)/sandbox-nb image build base
	touch $@

$(VENV)/.setup-dev: $(VENV)/.setup
	scripts/system-packages dev
	$(BIN)/python scripts/install.py dev
	$(BIN)/sandbox-nb image build python
	touch $@

demo: setup      ## a notebook starts a real machine, runs commands in it, stops it; its output is printed
	$(BIN)/python scripts/demo.py notebooks/quickstart.ipynb

lab: setup       ## JupyterLab with the notebooks
	$(BIN)/jupyter lab notebooks

test: setup-dev  ## all tests, those with machines and browsers included
	$(BIN)/$(PYTEST) -m "not soak"

coverage: setup-dev ## the same, and which lines of the package they run: fails under 95 %
	$(BIN)/coverage erase
	$(MAKE) test PYTEST="coverage run -m pytest"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

soak: setup-dev  ## the long tests
	$(BIN)/pytest -m soak --timeout 3600

check: setup-dev ## lint, types, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/protos.py --check
	$(BIN)/python hatch_frontend.py --check

format:          ## put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: setup-dev ## regenerate the modules made from .proto files
	$(BIN)/python scripts/protos.py

binder-check: setup ## build and run the notebooks as Binder would
	scripts/binder-check

docs: setup-dev  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: setup-dev ## measure everything into benchmarks/, best on a machine with nothing else to do
	$(BIN)/sandbox-nb bench --results benchmarks

bench-peers: $(VENV)/.setup-peers ## the same, with others' products beside
	$(BIN)/sandbox-nb bench --peers --results benchmarks

$(VENV)/.setup-peers: $(VENV)/.setup-dev
	$(BIN)/python scripts/install.py dev,peers
	touch $@

screenshots: setup-dev ## the pictures for the documentation
	$(BIN)/python scripts/screenshots.py

bench-terminal: setup-dev ## measure the terminal beside JupyterLab's own
	$(BIN)/sandbox-nb bench terminal

clean:           ## remove what was built, but for the cached images
	rm -rf $(VENV) build dist sandbox_nb/_bin
