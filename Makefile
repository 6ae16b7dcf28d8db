# The habits: `make install`, `make lint`, `make test`, `make demo`. Two clones may share one
# environment: `make test VENV=/path/to/venv`.
VENV ?= .venv
PY := $(VENV)/bin/python
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)-$(shell pwd | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help install lint test demo bench serve mlflow clean

help: ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP) ## the environment alone (VENV=path, .venv by default)

$(STAMP): pyproject.toml constraints.txt
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11) and "S2V-GAN needs Python 3.11 or newer; python3 here is " + sys.version.split()[0])'
	@test -x $(PY) || { echo "Making the environment in $(VENV) (about 7 GB, minutes)"; python3 -m venv $(VENV); }
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo,download,dev]'
	@rm -f $(VENV)/.installed-*; touch $@

lint: install ## ruff, mypy and the rules of the house (import-linter)
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: install ## the whole test suite (what CI runs)
	$(BIN)/pytest

demo: install ## render a talking head, extract, train, evaluate, speak
	$(BIN)/s2vgan demo --out runs/demo

bench: install ## every bench, one after another; each prints one JSON line last
	@for f in bench/*.py; do echo "== $$f"; $(PY) $$f || exit 1; done

serve: install ## serve the champion on http://localhost:8000
	$(PY) serve/app.py

mlflow: install ## the MLflow UI on http://localhost:5000
	$(BIN)/s2vgan mlflow

clean: ## remove what runs left behind (not the environment)
	rm -rf runs mlruns mlartifacts mlflow.db
