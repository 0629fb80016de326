# Everything a reader of README runs. Each target sets up what it needs; a second run is quick.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_READY := node_modules/.ready web/backend/node_modules/.ready
COMPILED := artifacts/.ready
PYTEST_ARGS ?=
WORKERS ?= 2
BENCH_ARGS ?=

.PHONY: help demo test test-python test-contracts test-backend bench-quick bench lint types imports system-packages lock clean

help:            ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(VENV)/.ready $(NODE_READY) $(COMPILED)  ## a local chain, Valkey, backend, traders and the listener; prints the chart's address
	@exec $(BIN)/listener demo $(DEMO_ARGS)

test: test-contracts test-python  ## every test, on real components

test-contracts: $(COMPILED)  ## the Solidity contracts, under Hardhat
	npx hardhat test

test-python: $(VENV)/.ready $(NODE_READY) $(COMPILED) system-packages  ## units, ports, integration and end to end; coverage of domain and application
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --cov --cov-report=term $(PYTEST_ARGS)

bench-quick: $(VENV)/.ready  ## a minute: trades a second of a backfill, checked against the oracle, and of plain web3.py code
	$(BIN)/python -m bench.backfill --trades 50000 --runs 3 $(BENCH_ARGS)
	$(BIN)/python -m bench.baseline --trades 5000 --runs 1

bench: $(VENV)/.ready  ## the same with a million trades, and where the time goes
	$(BIN)/python -m bench.replay --measure
	$(BIN)/python -m bench.backfill --trades 1000000 --runs 3 $(BENCH_ARGS)
	$(BIN)/python -m bench.backfill --trades 1000000 --runs 1 --stages $(BENCH_ARGS)
	$(BIN)/python -m bench.baseline --trades 20000 --runs 3

lint: $(VENV)/.ready  ## style of the Python code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready web/backend/node_modules/.ready  ## static types: Python strict, JavaScript checked
	$(BIN)/mypy
	cd web/backend && npx tsc -p tsconfig.json

imports: $(VENV)/.ready  ## the layers: domain <- application <- infrastructure
	$(BIN)/lint-imports

# Two programs that no package registry of Python or Node has: a browser for the chart page's tests, and Redis
# to run the port contracts on it as well as on the embedded Valkey. Debian's packages, where we may install them.
system-packages:
	@missing=""; \
	command -v chromium chromium-browser google-chrome >/dev/null || missing="chromium"; \
	command -v redis-server >/dev/null || missing="$$missing redis-server"; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "Installing $$missing…"; apt-get update -qq && \
	    RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing fonts-dejavu-core >/dev/null; \
	  else \
	    echo "Tests need these programs: install them, e.g. 'sudo apt-get install $$missing'."; exit 1; \
	  fi; fi

$(VENV)/.ready: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=python3.12 make …)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

node_modules/.ready: package-lock.json
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node.js 20 or newer is needed"; exit 1; }
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web/backend/node_modules/.ready: web/backend/package-lock.json
	cd web/backend && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(COMPILED): node_modules/.ready hardhat.config.js $(shell find contracts -name '*.sol')
	npx hardhat compile --quiet
	@touch $@

lock:            ## write the lock files anew from pyproject.toml (needs uv)
	uv export --quiet --format requirements-txt --no-header --no-emit-project --no-dev --output-file requirements.txt
	uv export --quiet --format requirements-txt --no-header --no-emit-project --all-extras --output-file requirements-dev.txt

clean:           ## remove what was installed and built
	rm -rf $(VENV) node_modules web/backend/node_modules artifacts cache deployments .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
