# Verbs of the house. `make demo` and `make test` set everything up by themselves.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
# The interpreter that the extension is built for, also when another environment is active.
export VIRTUAL_ENV := $(CURDIR)/$(VENV)
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
# What Python has compiled is kept, or each process of the demo compiles everything anew.
unexport PYTHONDONTWRITEBYTECODE
UV := $(BIN)/uv
CARGO := cargo
MANIFEST := dtms_rs/Cargo.toml

SETUP := $(VENV)/.setup
BUILT := $(VENV)/.built
RUST := $(MANIFEST) dtms_rs/Cargo.lock $(shell find dtms_rs/src dtms_rs/core/src dtms_rs/core/Cargo.toml -type f)
PROTOS := $(wildcard proto/dtms/v1/*.proto)
# Retry policies and per-method timeouts: one source for the clients of all languages.
SHARED := proto/dtms/v1/service_config.json proto/dtms/v1/timeouts.json
STUBS := clients/python/dtms/v1
BASE := proto/base.binpb
TYPED := python/dtms_service clients/python/dtms_client $(wildcard clients/python/tests) tests $(wildcard benches/*.py)

# Simulation: worlds to run, and the first seed; CI runs these, a night runs thousands.
SEEDS ?= 200
SEED ?= 1
WORLDS := $(BIN)/pytest tests/sim/test_worlds.py -m slow --numprocesses auto --timeout 1800

.PHONY: help
help: ## List the verbs
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# ---- set up and build -------------------------------------------------------------------------------------------

.PHONY: setup
setup: $(SETUP) $(BUILT) ## Make .venv with everything pinned and build the extension (a second run is instant)

# Inexact, or uv would remove itself and the extension, which are no part of this sync.
$(SETUP): uv.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python >= 3.11 is needed, {sys.executable} is {v.major}.{v.minor}; say make PYTHON=/path/to/python")'
	@command -v $(CARGO) > /dev/null || { echo "Rust (cargo) is needed: https://rustup.rs" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
	@$(UV) --version 2> /dev/null | grep -qF 'uv $(UV_VERSION)' || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(UV) sync --frozen --inexact --all-packages --all-groups --no-install-package dtms-service
	@touch $@

# maturin keeps Cargo's incremental build; uv would build in a clean room each time.
$(BUILT): $(SETUP) $(RUST)
	$(BIN)/maturin develop --uv --release --locked --quiet
	@touch $@

.PHONY: build
build: $(BUILT) ## Build the Rust extension (only when its sources changed)

# ---- run --------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(BUILT) ## Replay a year of EURUSD through the real processes, three managers at work; report in demo-report/
	$(BIN)/dtms demo

.PHONY: test
test: $(BUILT) ## Run the fast suite: Rust core, then Python
	$(CARGO) test --manifest-path $(MANIFEST) --package dtms-core --locked --quiet
	$(BIN)/pytest --numprocesses auto

.PHONY: sim
sim: $(BUILT) ## Run the long suite: SEEDS=n worlds, planted bugs, whole histories; with SEED=first the worlds only
ifeq ($(origin SEED),command line)
	$(WORLDS) --sim-seeds $(SEEDS) --sim-first-seed $(SEED) -k every_seed
else
	$(WORLDS) --sim-seeds $(SEEDS) --sim-first-seed $(SEED)
	$(BIN)/pytest -m slow --numprocesses auto --dist worksteal --timeout 1800 --ignore tests/sim/test_worlds.py
endif

.PHONY: bench
bench: $(BUILT) ## Measure against bare baselines in one run; table here, JSON in bench-report/
	$(BIN)/python -m benches

# ---- generate ---------------------------------------------------------------------------------------------------

# Stubs and the shared call data, laid out as clients/python, below OUT.
.PHONY: stubs
stubs: $(SETUP)
	@test -n "$(OUT)" || { echo 'say where: make stubs OUT=folder' >&2; exit 1; }
	mkdir -p $(OUT)/dtms_client
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=$(OUT) --grpc_python_out=$(OUT) \
		--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:$(OUT) \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_grpc_out=quiet:$(OUT) $(PROTOS)
	cp $(SHARED) $(OUT)/dtms_client/

.PHONY: proto
proto: $(SETUP) ## Generate the Python stubs from proto/ (committed; never edit them)
	rm -f $(STUBS)/*_pb2*.py $(STUBS)/*_pb2*.pyi
	$(MAKE) --no-print-directory stubs OUT=clients/python

.PHONY: proto-go
proto-go: $(SETUP) ## Generate the Go stubs (needs Go; the plugins are pinned in clients/go/go.mod)
	cd clients/go && $(CURDIR)/$(BIN)/buf generate ../../proto
	cp $(SHARED) clients/go/gen/

# ---- verify and fix, in pairs -----------------------------------------------------------------------------------

.PHONY: verify
verify: verify-format verify-lint verify-types verify-rust verify-proto verify-generated verify-house ## Check all that can be checked without running the service

.PHONY: fix
fix: fix-format fix-lint fix-rust fix-proto fix-generated ## Repair what a tool can repair

.PHONY: verify-format fix-format
verify-format: $(SETUP) ## Python layout
	$(BIN)/ruff format --check
fix-format: $(SETUP) ## Lay out the Python files
	$(BIN)/ruff format

.PHONY: verify-lint fix-lint
verify-lint: $(SETUP) ## Python rules
	$(BIN)/ruff check
fix-lint: $(SETUP) ## Apply the safe fixes of the Python rules
	$(BIN)/ruff check --fix

.PHONY: verify-types fix-types
verify-types: $(BUILT) ## mypy --strict, and _core.pyi against the built extension
	$(BIN)/mypy $(TYPED)
	MYPYPATH=python $(BIN)/stubtest dtms_service._core --mypy-config-file pyproject.toml
fix-types: $(BUILT) ## Run the type checker as a daemon, for quick rounds of repair by hand
	$(BIN)/dmypy run -- $(TYPED)

.PHONY: verify-rust fix-rust
verify-rust: $(SETUP) ## Rust layout and clippy, warnings denied
	$(CARGO) fmt --manifest-path $(MANIFEST) --all --check
	$(CARGO) clippy --manifest-path $(MANIFEST) --workspace --all-targets --locked --quiet -- -D warnings
fix-rust: $(SETUP) ## Lay out the Rust files and apply clippy's safe fixes
	$(CARGO) clippy --manifest-path $(MANIFEST) --workspace --all-targets --locked --quiet --fix --allow-dirty --allow-staged
	$(CARGO) fmt --manifest-path $(MANIFEST) --all

.PHONY: verify-proto fix-proto fix-proto-base
verify-proto: $(SETUP) ## Layout, lint and compatibility of the protocol with the released one
	$(BIN)/buf format proto --diff --exit-code
	$(BIN)/buf lint proto
	@if test -f $(BASE); then echo '$(BIN)/buf breaking proto --against $(BASE)'; $(BIN)/buf breaking proto --against $(BASE); \
	else echo 'buf breaking: skipped, $(BASE) does not exist; `make fix-proto-base` writes it at the first release'; fi
fix-proto: $(SETUP) ## Lay out the proto files
	$(BIN)/buf format proto --write
fix-proto-base: $(SETUP) ## Make the present protocol the one that later versions must be compatible with
	$(BIN)/buf build proto --as-file-descriptor-set --output $(BASE)

.PHONY: verify-generated fix-generated
verify-generated: $(SETUP) ## The committed stubs and call data are what proto/ gives
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(MAKE) --no-print-directory stubs OUT="$$scratch" > /dev/null; \
	differ() { diff "$$@" || { echo 'the committed files are not what proto/ gives: run make proto' >&2; exit 1; }; }; \
	differ -r -x __init__.py -x __pycache__ -x py.typed $(STUBS) "$$scratch/dtms/v1"; \
	for file in $(notdir $(SHARED)); do differ clients/python/dtms_client/$$file "$$scratch/dtms_client/$$file"; done
fix-generated: proto ## Generate anew

.PHONY: verify-house fix-house
verify-house: $(BUILT) ## Layers, folders, clocks, configuration keys (tests/test_house.py)
	$(BIN)/pytest --quiet tests/test_house.py
fix-house: verify-house ## Names each breach; moving code is left to people

# Go and Node may be absent, so this is no part of `make verify`.
.PHONY: verify-clients fix-clients
verify-clients: $(SETUP) ## Build the clients in other languages, where their tools exist
	@if command -v go > /dev/null; then set -ex; cd clients/go; \
		test -z "$$(gofmt -l *.go)"; go vet ./...; go build -o /dev/null .; \
		scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
		$(CURDIR)/$(BIN)/buf generate ../../proto --output "$$scratch"; cp $(addprefix ../../,$(SHARED)) "$$scratch/gen"; \
		diff -r gen "$$scratch/gen"; \
	else echo 'clients/go: skipped, no go on this machine'; fi
	@if command -v npm > /dev/null; then set -ex; cd clients/node; \
		npm ci --ignore-scripts --no-audit --no-fund --loglevel=error; node --check watch.js; node watch.js --help > /dev/null; \
	else echo 'clients/node: skipped, no npm on this machine'; fi
fix-clients: proto-go ## Lay out and generate the Go client anew
	gofmt -w clients/go/*.go
