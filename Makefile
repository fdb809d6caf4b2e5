# Every target sets up what it needs; Python 3.11 or newer with pip is all it asks for.
PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2

UV     := .tools/bin/uv
RUN    := $(VENV)/bin/python
PYTEST := $(RUN) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
CODE   := s2sjax experiments tests

export UV_PYTHON_DOWNLOADS := never
# Python before 3.13 reads the path of an installed checkout by the locale.
export LC_ALL := C.UTF-8

.DEFAULT_GOAL := help
.PHONY: help reproduce smoke test test-all lint format tables lock clean

help: ## print this table
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
	@echo "with another Python: make test PYTHON=python3.12"

reproduce: $(VENV)/.ready ## the experiment: does reversing the source help?
	$(RUN) experiments/reverse_vs_forward.py notebook

smoke: $(VENV)/.ready ## the same experiment in small, in a minute
	$(RUN) experiments/reverse_vs_forward.py smoke

test: $(VENV)/.ready ## the tests, without the slow ones
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.ready ## all tests
	$(PYTEST)

lint: $(VENV)/.ready ## check style, format, types and size
	$(RUN) -m ruff check $(CODE)
	$(RUN) -m ruff format --check $(CODE)
	$(VENV)/bin/pyrefly check --python-interpreter-path $(RUN)
	@$(RUN) tests/line_counts.py

format: $(VENV)/.ready ## fix what can be fixed, and format
	$(RUN) -m ruff check --fix $(CODE)
	$(RUN) -m ruff format $(CODE)

tables: $(VENV)/.ready ## write the tables of all pages anew
	$(RUN) experiments/tables.py

lock: .tools/.ready ## write requirements.lock anew (newest versions: make lock UPGRADE=--upgrade)
	$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-header \
	  --no-annotate $(UPGRADE) --extra text --group dev --output-file requirements.lock pyproject.toml

clean: ## remove the set-up and caches; runs/ stays
	rm -rf .venv .venv?* .tools build dist .pytest_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# The set-up. .ready is written last and names the interpreter and the folder: one that was
# interrupted, moved, or made by another Python is made anew.
MADE := $(shell $(PYTHON) -c 'import os, sys; \
  print(sys.version_info[:3], sys.base_prefix, os.getcwd())' 2>/dev/null)
ifneq ($(MADE),$(shell cat $(VENV)/.ready 2>/dev/null))
.PHONY: $(VENV)/.ready
endif

CHECK = @$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
  echo "no Python 3.11 or newer: $(PYTHON) (name one: make ... PYTHON=python3.12)" >&2; exit 1; }

$(VENV)/.ready: requirements.lock pyproject.toml | .tools/.ready
	$(CHECK)
	@if [ "$(MADE)" = "$$(cat $@ 2>/dev/null)" ]; then echo "updating $(VENV)"; else \
	  echo "setting up $(VENV) with $(PYTHON) (once, about a minute)"; \
	  $(UV) venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" \
	    $(VENV); fi
	@rm -f $@
	@$(UV) pip install --quiet --python $(RUN) --no-deps --no-build --require-hashes \
	  --requirement requirements.lock
	@$(UV) pip install --quiet --python $(RUN) --no-deps --no-build-isolation --offline --editable .
	@echo "$(MADE)" > $@

.tools/.ready:
	$(CHECK)
	@$(PYTHON) -m pip --version >/dev/null 2>&1 || \
	  { echo "$(PYTHON) has no pip (Debian: apt install python3-pip; or name another:" \
	  "make ... PYTHON=/usr/bin/python3)" >&2; exit 1; }
	@rm -rf .tools
	@PIP_ROOT_USER_ACTION=ignore PIP_REQUIRE_VIRTUALENV=0 $(PYTHON) -m pip install --quiet --no-user \
	  --disable-pip-version-check --only-binary :all: --target .tools "uv>=0.9,<1"
	@touch $@
