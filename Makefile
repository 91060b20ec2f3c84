# Each target works alone on a fresh clone: it makes what it needs, first of all `.venv`, and asks
# for no more than Python >= 3.11 and a C++ compiler (`check` also for npm).

PYTHON ?= python3
BIN := .venv/bin
# The compiler of protos finds its plugin for type stubs on the PATH.
GENERATE := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python scripts/generate_protos.py
BUF_VERSION := 1.75.0
UV_VERSION := 0.13.9

# Files to be used instead of the generated marketplace.
DEMO_OPTIONS := $(if $(INTERACTIONS),--interactions '$(INTERACTIONS)') $(if $(TITLES),--titles '$(TITLES)') \
	$(if $(TITLES_ID_OFFSET),--titles-id-offset '$(TITLES_ID_OFFSET)')

.DEFAULT_GOAL := help
.PHONY: help demo test check bench soak protos lock clean

help: ## Print this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## From interactions to recommendations; INTERACTIONS=FILE TITLES=FILE: with yours.
	@$(BIN)/python -m scripts.demo $(DEMO_OPTIONS)

test: .venv/.installed ## Run every test.
	@$(BIN)/pytest

check: .venv/.installed .venv-newest/.installed .tools/buf-$(BUF_VERSION) ## The gate beside the tests: style, types, protos, manifests, versions.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	.tools/node_modules/.bin/buf lint protos
	$(GENERATE) --check
	$(BIN)/python scripts/check_manifests.py
	PYTHONPATH=. .venv-newest/bin/python scripts/check_imports.py
	$(BIN)/pytest --quiet tests/test_tidy.py

bench: .venv/.installed ## Measure on this machine; leaves tables, JSON and plots in benchmarks/results.
	@RANGEFINDER_DATA="$${RANGEFINDER_DATA:-../shared/data}" $(BIN)/python -m rangefinder.cli.main bench --out benchmarks/results
	@$(BIN)/python -m benchmarks.naive
	@$(BIN)/python -m benchmarks.retrieval
	@$(BIN)/python -m benchmarks.recommendation

soak: .venv/.installed ## Every fault for long, and a million calls each that are cancelled and that expire.
	@RANGEFINDER_FAULT_S=60 RANGEFINDER_LEAVING_CALLS=1000000 $(BIN)/pytest -rP \
		tests/cluster/test_callers_that_leave.py tests/cluster/test_replicas.py \
		tests/cluster/test_lost_shards.py tests/cluster/test_other_maps.py tests/cluster/test_versions.py \
		tests/cluster/test_overload.py tests/cluster/test_faults.py tests/cluster/test_client_faults.py tests/cluster/test_workers.py

protos: .venv/.installed ## Generate the Python code of every proto anew.
	@$(GENERATE)

lock: .venv-lock/.installed ## Resolve requirements.lock anew; `make lock UPGRADE=--upgrade` takes the newest.
	@echo "Resolving requirements.lock"
	@.venv-lock/bin/uv pip compile --quiet $(UPGRADE) --universal --python-version 3.11 \
		--generate-hashes --extra dev --no-annotate --constraints constraints.txt \
		--custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean: ## Remove what the targets made: environments, tools, caches, the demo.
	@rm -rf .venv .venv-lock .venv-newest .tools build demo *.egg-info
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call new_environment,FOLDER): an empty virtual environment, or one line that says why not.
define new_environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Rangefinder needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(1)
endef

# Stamps are written last, so an installation that was cut short is begun again.
.venv/.installed: requirements.lock pyproject.toml
	$(call new_environment,.venv)
	@echo "Installing Rangefinder and its locked dependencies into .venv (a minute or two, once)"
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock || { \
		echo "Installation failed, see above (hnswlib needs a C++ compiler: g++ or clang++)" >&2; exit 1; }
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The client's dependencies at the newest end of their ranges; the lock has the oldest end.
.venv-newest/.installed: Makefile
	$(call new_environment,.venv-newest)
	@echo "Installing the newest gRPC and protobuf that the client supports into .venv-newest"
	@.venv-newest/bin/pip install --quiet --disable-pip-version-check --upgrade \
		'grpcio==1.82.*' 'grpcio-status==1.82.*' 'protobuf>=7,<8' numpy
	@touch $@

.venv-lock/.installed: Makefile
	$(call new_environment,.venv-lock)
	@echo "Installing uv $(UV_VERSION) into .venv-lock"
	@.venv-lock/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

.tools/buf-$(BUF_VERSION):
	@command -v npm >/dev/null || { \
		echo "make check lints the protos with buf, which comes by npm: install Node.js with npm" >&2; exit 1; }
	@echo "Installing buf $(BUF_VERSION) into .tools"
	@npm install --loglevel=error --no-save --no-audit --no-fund --prefix .tools \
		@bufbuild/buf@$(BUF_VERSION) >/dev/null
	@touch $@
