# Everything runs in .venv, which is made on first use. `make` alone lists what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A process per core, four at most: each loads torch and models of its own. A file's tests stay together.
PYTEST := SMOKE=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: help install demo lab test quick check notebooks bench
.DEFAULT_GOAL := help

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED)  ## make .venv and install the toolkit with everything it can use

# Again only when the dependencies or their pins have changed.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV); the first time takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: install  ## a tour in the terminal: generate, look inside, serve (ends by itself)
	$(BIN)/toolkit demo

lab: install  ## open JupyterLab on the first notebook
	$(BIN)/jupyter lab notebooks/01_first_tokens.ipynb

test: install  ## every test that needs no GPU, notebooks included
	$(PYTEST) -m "not gpu" --nbval-lax --nbval-current-env --nbval-cell-timeout=300 \
		--durations=10 tests notebooks

quick: install  ## the fast tests, in less than 90 seconds
	$(PYTEST) -m "not slow and not gpu" tests

check: install  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

notebooks: install  ## run every notebook from top to bottom
	$(PYTEST) --nbval-lax --nbval-current-env --nbval-cell-timeout=300 --durations=10 \
		tests/notebooks notebooks

# Those that require arguments compare with another project's engine or client; their docstrings say how.
bench: install  ## run every benchmark in kernels/bench that needs no arguments
	@for script in $$(grep -ls '__name__ == "__main__"' kernels/bench/*.py | xargs grep -L 'required=True'); do \
		echo "== $$script"; $(BIN)/python "$$script" || exit 1; \
	done
