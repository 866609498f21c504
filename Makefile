# make course   makes .venv, installs, gets the assets and runs every notebook
# make help     lists the rest; tools/setup.py says in one sentence what is wrong
PYTHON ?= python3
NOTEBOOKS ?=
ROOM ?=

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

NBVAL := -p no:randomly --nbval-lax --nbval-current-env \
	--nbval-cell-timeout 120 --nbval-sanitize-with tests/nbval_sanitize.cfg -x

.PHONY: help setup setup-test assets course test lab slides lint room clean
.DEFAULT_GOAL := help
.NOTPARALLEL:

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' Makefile | awk -F': ' '{printf "  make %-12s%s\n", $$1, $$2}'
	@echo '  variables: NOTEBOOKS=00,01 picks notebooks, PYTHON=python3.12 the Python,'
	@echo '  ROOM=room.zip installs without internet from what `make room` packed'

setup:  ## make .venv and install the course
	@$(PYTHON) tools/setup.py $(if $(ROOM),--from "$(ROOM)")

setup-test:  ## the same with what the tests need
	@$(PYTHON) tools/setup.py test $(if $(ROOM),--from "$(ROOM)")

assets: setup  ## get the data and the pretrained weights
	@$(BIN)/mmcourse assets $(if $(ROOM),--from "$(ROOM)")

course: assets  ## run the notebooks and print their results
	@$(BIN)/mmcourse run $(NOTEBOOKS)

test: setup-test assets  ## run the unit tests, then every notebook
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not browser" tests
	$(BIN)/python -m pytest -m browser tests
	TQDM_DISABLE=1 $(BIN)/python -m pytest $(NBVAL) notebooks

lab: assets  ## open the notebooks in JupyterLab
	@$(BIN)/mmcourse lab

slides: setup  ## build the decks
	@$(BIN)/mmcourse slides

lint: setup-test  ## check the style of the code and the notebooks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

room: setup  ## pack room.zip for a room without internet
	@$(BIN)/mmcourse assets --pack room.zip

clean:  ## remove caches and builds; .venv and the assets stay
	rm -rf build .pytest_cache .ruff_cache .hypothesis slides/*.html slides/*.pdf
	find mmcourse tests tools notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
