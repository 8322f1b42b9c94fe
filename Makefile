# Everything that users and CI run; `make` alone lists it. Kept to what GNU make 3.81 knows, since that is macOS's.

VENV := .venv
PY := $(VENV)/bin/python
# Further words for the command a target runs (make lab ARGS=--no-browser), and for pip (make lab PIP_ARGS="...").
ARGS ?=
PIP_ARGS ?=
# The Python to build the environment with; without one, the first below that has a supported version.
PYTHON ?=

# Jupyter refuses root unless told. Who is root here is in a container; address and token stay as they are.
AS_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)

.DEFAULT_GOAL := help
.PHONY: help lab test lint types format docs bench stress coverage results clean
.DELETE_ON_ERROR:

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

# As the address to open rather than as an argument, so that it is also in the address that --no-browser prints.
QUICKSTART := notebooks/01_quickstart.ipynb

lab: $(VENV)/installed ## set up, then open JupyterLab on the quickstart (ARGS=--no-browser prints the address only)
	$(PY) -m jupyterlab --ip=127.0.0.1 $(AS_ROOT) --LabApp.default_url=/lab/tree/$(QUICKSTART) $(ARGS)

# Compiled code is kept by the file that a function is in, and not by those that it calls: what is older than these goes.
ARITHMETIC := workbench/networks/kernels.py

# Two processes, a file of tests to each; one thread in each, or they fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile

test: $(VENV)/installed-test $(VENV)/older-ipykernel/installed ## set up, then pass every test and every notebook (ARGS="-k theory": some tests only)
	@find workbench -name '*.nb[ci]' ! -newer $(ARITHMETIC) -delete
	$(PYTEST) $(ARGS)
	$(if $(ARGS),,$(PYTEST) --nbval notebooks/*.ipynb)

lint: $(VENV)/installed-dev ## check style and layout
	$(PY) -m ruff check
	$(PY) -m ruff format --check

types: $(VENV)/installed-dev ## check types
	$(PY) -m mypy

format: $(VENV)/installed-dev ## put style and layout right
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

docs: $(VENV)/installed-docs ## write the documentation to build/docs/index.html; a warning is an error
	$(PY) -m mkdocs build --strict

bench: $(VENV)/installed ## how fast this machine is: raw physics, stepping, training
	$(PY) -m workbench bench $(ARGS)

stress: $(VENV)/installed-test ## the long trials that `make test` leaves out
	$(PY) -m pytest -m stress $(ARGS)

coverage: $(VENV)/installed-test ## which lines of the code the tests reach
	$(PYTEST) --cov=workbench --cov-report=term:skip-covered $(ARGS)

# Which study: data/tuning chose the settings of data/results; data/walker2d asks what keeps HATRPO back there.
STUDY := data/results

results: $(VENV)/installed ## do what data/results lacks, saying how long it takes (ARGS="--plan", "--hours 3", …)
	$(PY) -m workbench study $(STUDY) $(ARGS)

clean: ## remove the environment and all caches; data/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find workbench tests notebooks -name __pycache__ -prune -exec rm -rf {} +
	find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} +

# The files below only say "done", so that a second call has nothing to do.
$(VENV)/installed: $(VENV)/created pyproject.toml constraints.txt
	$(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/installed-%: $(VENV)/created pyproject.toml constraints.txt
	$(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[$*]"
	@touch $(VENV)/installed $@

# A second ipykernel, in a folder of its own, for the panel to be tested in as well. Without it those tests are skipped.
OLDER := tests/jupyter/older-ipykernel.txt
$(VENV)/older-ipykernel/installed: $(OLDER) $(VENV)/created
	@$(PY) -m pip install --disable-pip-version-check $(PIP_ARGS) -q --upgrade --no-deps --target $(@D) -r $(OLDER) && \
		touch $@ || echo "$(OLDER) could not be installed; the tests that need it are skipped." >&2

# An environment that is there and has pip is kept. Debian splits ensurepip off, and then the system's pip seeds ours.
$(VENV)/created:
	@if $(PY) -m pip --version >/dev/null 2>&1; then touch $@; exit; fi; \
	for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14) none; do \
		"$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null && break; \
	done; \
	if [ "$$python" = none ]; then \
		echo "No Python from 3.11 to 3.14 found$(if $(PYTHON), at '$(PYTHON)'). Install one," \
			"or name it: make lab PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version) ($$python)"; \
	"$$python" -m venv $(VENV) 2>/dev/null || { \
		"$$python" -m venv --clear --without-pip $(VENV) && "$$python" -m pip --python $(PY) install -q pip; \
	} || { echo "$$python can make no environment: install its pip (Debian: python3-pip or python3-venv)." >&2; exit 1; }; \
	touch $@
