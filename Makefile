# Every target sets up .venv by itself, once; `make help` lists them.
#
#   PYTHON       the interpreter that makes .venv (3.11 or newer)       make test PYTHON=python3.12
#   TORCH_INDEX  the package index to take torch from, where not pip's  make demo TORCH_INDEX=URL
#   PIP_FLAGS    anything else for pip                                  make demo PIP_FLAGS=--no-cache-dir
#   WORKERS      processes that share the tests                        make test WORKERS=8
#   ARGS         passed on to pytest                                    make test ARGS=tests/test_types.py

PYTHON ?= python3
TORCH_INDEX ?=
PIP_FLAGS ?=
WORKERS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLUGINS := $(patsubst %/pyproject.toml,./%,$(wildcard plugins/*/pyproject.toml))
PIP = $(BIN)/python -m pip --disable-pip-version-check install -qq $(PIP_FLAGS) -c constraints.txt

DEMO = match examples/data/graffiti_a.jpg examples/data/graffiti_b.jpg \
	--picture demo-out/matches.png --json-file demo-out/matches.json

# The tests start many processes, which would all compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo demo-web test lint types imports docs wheels changelog clean distclean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(STAMP) ## match two photographs; writes a picture and a JSON file to demo-out/
	@mkdir -p demo-out
	$(BIN)/kornia-ditf $(DEMO)

demo-web: $(STAMP) ## match images in the browser: click a point, see where it lands
	$(BIN)/kornia-ditf demo

test: $(STAMP) ## run every test and every example in the documentation of the code
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

lint: $(STAMP) ## check style and formatting
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: $(STAMP) ## check the types
	$(BIN)/python -m mypy

imports: $(STAMP) ## check that imports go downwards only
	$(BIN)/lint-imports --no-logo

docs: $(STAMP) ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheels: $(STAMP) ## build the package and its plugins into dist/, and check them
	rm -rf dist
	for package in . $(PLUGINS); do $(BIN)/python -m pip --disable-pip-version-check wheel -q --no-deps \
		--no-build-isolation --wheel-dir dist $$package || exit 1; done
	$(BIN)/python -m twine check --strict dist/*

changelog: $(STAMP) ## show what the next release's notes will say
	$(BIN)/python -m towncrier build --draft

clean: ## remove what the other commands wrote, except .venv
	rm -rf demo-out dist build docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## remove .venv as well
	rm -rf $(VENV)

# Set up again where .venv was moved (the stamp holds its path) or its Python is gone.
ifneq ($(shell cat $(STAMP) 2>/dev/null && $(BIN)/python -c '' 2>/dev/null || echo broken),$(CURDIR))
.PHONY: $(STAMP)
endif

# torch goes first and by itself, so that pip takes a CPU wheel where the machine offers one.
$(STAMP): pyproject.toml constraints.txt $(PLUGINS:%=%/pyproject.toml)
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "kornia_ditf needs Python 3.11 or newer, and '$(PYTHON)' is not; name one with make PYTHON=..." >&2; \
		exit 1; }
	@grep -qsF '$(CURDIR)/$(BIN)/' $(BIN)/pip && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
		echo "Making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "Installing torch (large: this can take minutes)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	@echo "Installing kornia-ditf and what it needs"
	@$(PIP) -e '.[dev,docs]'
	@$(if $(PLUGINS),echo "Installing the plugins" && $(PIP) --no-deps $(PLUGINS:%=-e %))
	@echo "$(CURDIR)" > $@
