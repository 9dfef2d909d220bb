# Every chore of the project. `make help` lists them; each makes what it needs.

PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed

# The tests divide the cores among themselves, so that each may have one thread.
WORKERS ?= 2

GPU_PYTHON ?= $(if $(DRY),$(BIN)/python,$(PYTHON))
GPU        := PYTHONPATH=src $(GPU_PYTHON)
export TDSL := import sys; from tdsl.compiler.cli import main; sys.exit(main())

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint format ci gpu golden tables docs bench clean

help: ## List the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "  make %-8s %s\n", $$1, $$2 }'

venv: $(STAMP) ## Make .venv and install tdsl into it, with the versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tdsl needs Python 3.10 or newer: make PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: venv ## Train and evaluate examples/digits.model: accuracy, and a report to look at
	rm -rf examples/runs/digits
	$(BIN)/tdsl train examples/digits.model
	$(BIN)/tdsl evaluate examples/digits.model

test: venv ## Run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

lint: venv ## ruff, its formatter, and mypy's strict mode
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv ## Format the Python code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci: lint test ## What continuous integration runs

# On a GPU machine torch and triton are mostly there already, in a Python that is not ours: `make gpu GPU_PYTHON=...`.
# `make gpu DRY=1` does the same without a GPU: it lists the tests, and verifies in Triton's interpreter.
gpu: $(if $(DRY),venv) ## Run the tests that need a GPU, and `tdsl verify` on the examples; needs torch and triton in GPU_PYTHON
	$(GPU) -c 'import torch, triton, jinja2, pytest'
	$(GPU) -m pytest -m gpu -p no:cacheprovider $(if $(DRY),--collect-only) || test $$? -eq 5
	for program in examples/*.model; do $(GPU) -c "$$TDSL" verify $$program || exit 1; done

golden: venv ## Rewrite the golden files of the tests; read the difference before keeping it
	$(BIN)/python -m pytest --update-golden

tables: venv ## Rebuild the parser's tables after a change of dsl/grammar.lark
	$(BIN)/python -m tdsl.dsl.tablegen

docs: venv ## Rewrite what is generated in docs/: errors.md and the lists of names in language.md
	$(BIN)/python docs/generate.py

bench: venv ## Time `tdsl check` and `tdsl compile` as whole processes
	$(BIN)/python benchmarks/startup.py

clean: ## Remove .venv, caches and what the examples produced
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist examples/runs src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
