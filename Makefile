# `make demo` and `make test` need git, make and Python 3.10 or newer; they set up .venv themselves.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
DEMO := runs/demo

.PHONY: help demo test lint types tests docs fuzz soak serve format clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    train, evaluate and use LeNet-5 on real handwritten digits: under a minute after the install"
	@echo "make test    lint, types, tests and the documentation: what continuous integration runs"
	@echo "             (each alone: make lint, make types, make tests, make docs)"
	@echo "make fuzz    read thousands of damaged files; make soak: kill trainings a hundred times, and resume them"
	@echo "make serve   the documentation at http://127.0.0.1:8000"
	@echo "make format  put the code into the house's layout"
	@echo "make clean   remove what was built; .venv and runs stay"

# Set-up. The stamps are older than what they depend on when a dependency has changed.

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "opsin needs Python 3.10 or newer; try: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no virtual environment: on Debian and Ubuntu, apt install python3-venv"; exit 1; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing opsin into $(VENV); torch is large, this takes minutes"
	@$(PIP) "pip>=23"
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing opsin and its development tools into $(VENV); torch is large, this takes minutes"
	@$(PIP) "pip>=23"
	@$(PIP) -e '.[dev,docs]'
	@touch $(VENV)/.installed $@

# The main job

demo: $(VENV)/.installed
	@rm -rf $(DEMO) $(DEMO)-images
	$(BIN)/opsin train lenet5_digits --out $(DEMO)
	$(BIN)/opsin eval $(DEMO) --split test
	$(BIN)/opsin data digits --export $(DEMO)-images --split test --limit 8
	$(BIN)/opsin predict $(DEMO) $(DEMO)-images --out $(DEMO)/predicted
	@echo
	@echo "the report:            $(DEMO)/report.html"
	@echo "the annotated digits:  $(DEMO)/predicted"

# The checks

test: lint types tests docs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev
	$(BIN)/pyright --threads

# One thread a process: the processes share the cores. In three parts, each with processes of its own: what has imported
# and trained everything holds gigabytes. A part that fails does not keep the others from running. A crash of native code
# says where: trainings put back, when they end, the handlers of the signals that Python knows, and it knows none of those
# that are set before it begins.
PYTEST := OMP_NUM_THREADS=1 PYTHONFAULTHANDLER=1 $(BIN)/pytest -n auto --dist worksteal
tests: $(VENV)/.installed-dev
	failed=0; $(PYTEST) tests/[a-d]*/ || failed=1; $(PYTEST) tests/[e-r]*/ || failed=1; \
		$(PYTEST) tests/[s-z]*/ tests/test_*.py || failed=1; exit $$failed

docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# What the tests do a little of, at length: thousands of damaged files, a hundred kills, several machines,
# the multiply-adds of every network.
fuzz: $(VENV)/.installed-dev
	OPSIN_FUZZ=25 OMP_NUM_THREADS=1 $(BIN)/pytest -n auto tests/fuzz

soak: $(VENV)/.installed-dev
	OPSIN_SOAK=100 OMP_NUM_THREADS=1 $(BIN)/pytest tests/engine/test_soak.py tests/engine/test_resume.py \
		tests/engine/test_own_networks.py tests/test_docs.py tests/contract tests/backbones/test_dilation.py \
		tests/sequence/test_sequence_export.py tests/segment/test_segment_export.py

serve: $(VENV)/.installed-dev
	$(BIN)/mkdocs serve

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf build dist site .pytest_cache .ruff_cache
	find src tests benchmarks docs -name __pycache__ -prune -exec rm -rf {} +
