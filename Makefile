# Every chore of the project. `make help` lists them; each makes what it needs.

PYTHON ?= python3
BIN    := .venv/bin
STAMP  := .venv/.installed

# The tests divide the cores among themselves, so that each may have one thread.
WORKERS ?= 2

GPU_PYTHON ?= $(if $(DRY),$(BIN)/python,$(PYTHON))
GPU        := PYTHONPATH=src $(GPU_PYTHON)

PROGRAMS   := $(wildcard examples/*.model examples/course/*.model templates/new/*/*.model tests/golden/*.model \
                         tests/programs/*.model benchmarks/programs/*.model)

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint format ci gpu golden tables docs pictures bench opinfo gradcheck fuzz clean

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

lint: venv ## ruff, its formatter, mypy's strict mode, and tdsl's own formatter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/tdsl fmt --check $(PROGRAMS)

format: venv ## Format the Python code and the programs
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/tdsl fmt $(PROGRAMS)

ci: lint test ## What continuous integration runs

# On a GPU machine torch and triton are mostly there already, in a Python that is not ours: `make gpu GPU_PYTHON=...`.
# `make gpu DRY=1` runs the same without a GPU, in Triton's interpreter and at tiny sizes.
gpu: $(if $(filter $(BIN)/%,$(GPU_PYTHON)),venv) ## On a GPU: the tests that need one, `tdsl verify` on the examples, the benchmark; ten minutes
	$(GPU) -m tests.gpu $(if $(DRY),--dry) $(if $(OUT),--out $(OUT))

golden: venv ## Rewrite the golden files of the tests; read the difference before keeping it
	$(BIN)/python -m pytest --update-golden

tables: venv ## Rebuild the parser's tables after a change of dsl/grammar.lark
	$(BIN)/python -m tdsl.dsl.tablegen

docs: venv ## Rewrite what is generated in the documents: errors.md, the lists and the emitted code of the reference
	$(BIN)/python -m docs.generate

pictures: venv ## Take the pictures of a report and of the terminal that the documents show; needs Chromium and tmux
	$(BIN)/python -m docs.pictures

bench: venv ## Time `tdsl check` and `tdsl compile` as whole processes, the language server's answers, and training steps
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/editor.py
	$(BIN)/python -m benchmarks.training

opinfo: venv ## Compare every function of the language with PyTorch's own samples of it; counts what agrees
	$(BIN)/python -m tests.opinfo -n $(WORKERS)

gradcheck: venv ## Check every derived backward in float64
	$(BIN)/python -m tests.gradcheck

fuzz: venv ## 100,000 mutated programs and 500 injections: no traceback, no change of what is emitted
	$(BIN)/python -m tests.fuzz 100000
	$(BIN)/python -m tests.injection

clean: ## Remove .venv, caches and what the examples produced
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache build dist examples/runs src/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
