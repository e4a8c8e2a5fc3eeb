PYTHON ?= python3
BIN := .venv/bin
# where it is set, as in many container images, each process would compile all modules anew
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test lint docs install

run: install
	$(BIN)/python train.py
	$(BIN)/python evaluate.py --env-id LatentAnomaly-v0

test: install lint
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt requirements-docs.txt pyproject.toml tests/plugin/pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile -r requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps --editable .
	$(BIN)/pip install --quiet --no-deps --no-build-isolation ./tests/plugin
	touch $@
