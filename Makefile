# Everything a reader of README runs. Each target sets up what it needs; a second run is quick.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_READY := node_modules/.ready web/backend/node_modules/.ready
COMPILED := artifacts/.ready
PEERS_READY := bench/peers/node_modules/.ready
PYTEST_ARGS ?=
WORKERS ?= 2
BENCH_ARGS ?=
BENCH_DIR ?= .bench

.PHONY: help demo test test-python test-contracts test-backend bench-quick bench bench-peers lint types imports system-packages lock clean

help:            ## this text
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(VENV)/.ready $(NODE_READY) $(COMPILED)  ## a local chain, Valkey, backend, traders and the listener; prints the chart's address
	@exec $(BIN)/listener demo $(DEMO_ARGS)

test: test-contracts test-python  ## every test, on real components

test-contracts: $(COMPILED)  ## the Solidity contracts, under Hardhat
	npx hardhat test

test-python: $(VENV)/.ready $(NODE_READY) $(COMPILED) system-packages $(BIN)/promtool  ## units, ports, integration and end to end; coverage of domain and application
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --cov --cov-report=term $(PYTEST_ARGS)

bench-quick: $(VENV)/.ready $(NODE_READY)  ## a minute: backfill, live latency and plain web3.py code, checked against the oracle
	$(BIN)/python -m bench.all --json-dir $(BENCH_DIR) --quick $(BENCH_ARGS)

bench: $(VENV)/.bench-ready $(NODE_READY) $(COMPILED)  ## a quarter of an hour: everything that docs/benchmarks.md shows, and the document anew
	$(BIN)/python -m bench.all --json-dir $(BENCH_DIR) $(BENCH_ARGS)

bench-peers: $(VENV)/.ready $(PEERS_READY)  ## the same trades with Ponder and Envio on PostgreSQL; installs them at first
	$(BIN)/python -m bench.peers.run --json $(BENCH_DIR)/peers.json $(BENCH_ARGS)

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

# Prometheus' own check of the alert rules: one program out of Debian's package, which would start a server.
$(BIN)/promtool: | $(VENV)/.ready system-packages
	@found=$$(command -v promtool) && ln -sf "$$found" $@ || { \
	  rm -rf $(VENV)/prometheus && mkdir $(VENV)/prometheus && cd $(VENV)/prometheus && \
	  { [ "$$(id -u)" != 0 ] || [ -n "$$(apt-cache policy prometheus)" ] || apt-get update -qq; } && \
	  apt-get download -qq prometheus 2>/dev/null && \
	  dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 ./usr/bin/promtool && \
	  rm prometheus_*.deb && mv promtool "$(CURDIR)/$@"; \
	} || { echo "Tests need promtool: install it, e.g. 'sudo apt-get install prometheus'."; exit 1; }

$(VENV)/.ready: requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=python3.12 make …)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(PEERS_READY): bench/peers/package-lock.json bench/peers/ponder/package-lock.json bench/peers/envio/package.json
	cd bench/peers && npm ci --no-audit --no-fund --loglevel=error
	cd bench/peers/ponder && npm install --no-save --no-audit --no-fund --loglevel=error
	cd bench/peers/envio && PATH="$(CURDIR)/bench/peers/node_modules/.bin:$$PATH" pnpm install --silent
	@touch $@

$(VENV)/.bench-ready: requirements-bench.txt $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
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
	uv export --quiet --format requirements-txt --no-header --no-emit-project --only-group bench --output-file requirements-bench.txt

clean:           ## remove what was installed and built
	rm -rf $(VENV) node_modules web/backend/node_modules artifacts cache deployments .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .bench \
	  bench/peers/node_modules bench/peers/ponder/node_modules bench/peers/envio/node_modules bench/peers/envio/build
