# The habits: `make install`, `make lint`, `make test`, `make demo`. Two clones may share one
# environment: `make test VENV=/path/to/venv`.
VENV ?= .venv
PY := $(VENV)/bin/python
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)-$(shell pwd | cksum | cut -d' ' -f1)

.DEFAULT_GOAL := help
.PHONY: help install lint test demo table1 bench serve mlflow clean

help: ## list the commands
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

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

# The demo is the public commands, one after another. Each is skipped where its output is there.
DEMO := runs/demo

demo: install $(DEMO)/speech.mp4 ## render a talking head, extract, train, evaluate, speak
	@echo; echo "Read  $(DEMO)/report.html"; echo "Watch $(DEMO)/speech.mp4"

$(DEMO)/video/speech.wav: | install
	$(BIN)/s2vgan demo --out $(DEMO)/video

$(DEMO)/data/dataset.json: $(DEMO)/video/speech.wav
	$(PY) pipelines/extract.py $(DEMO)/video/talk.mp4 --out $(DEMO)/data

$(DEMO)/run/trained: $(DEMO)/data/dataset.json
	$(BIN)/s2vgan train --config conf/demo.yaml --data $(DEMO)/data --out $(DEMO)/run \
		$(if $(wildcard $(DEMO)/run/checkpoints/step_*.pt),--resume)
	@touch $@

$(DEMO)/report.html: $(DEMO)/run/trained
	$(BIN)/s2vgan evaluate --data $(DEMO)/data --out $(DEMO) --openings $(DEMO)/video $(DEMO)/run

$(DEMO)/speech.mp4: $(DEMO)/report.html
	$(BIN)/s2vgan speak --model $(DEMO)/run --audio $(DEMO)/video/speech.wav --out $@

# The method's experiment. Without a VIDEO the rendered head speaks.
TABLE1 ?= runs/table1
MINUTES ?= 10
SEEDS ?= 1

table1: install $(if $(VIDEO),,$(DEMO)/video/speech.wav) ## wav2pix, no GRU, GRU from a video to a table (VIDEO=, MINUTES=10, SEEDS=1)
	$(PY) pipelines/table1.py $(or $(VIDEO),$(DEMO)/video/talk.mp4) --out $(TABLE1) \
		--minutes $(MINUTES) --seeds $(SEEDS) $(if $(UNSEEN),--unseen $(UNSEEN))

bench: install ## every bench but the ablations, one after another; each prints one JSON line last
	@for f in $(filter-out bench/ablations.py,$(wildcard bench/[!_]*.py)); do echo "== $$f"; $(PY) $$f || exit 1; done

serve: install ## serve the champion on http://localhost:8000
	$(PY) serve/app.py

mlflow: install ## the MLflow UI on http://localhost:5000
	$(BIN)/s2vgan mlflow

clean: ## remove what runs left behind (not the environment)
	rm -rf runs mlruns mlartifacts mlflow.db
