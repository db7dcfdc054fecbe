# Everything a developer does. `make` alone says what there is.
# On a Debian-like machine each target installs what it needs first; the second run is quick.

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/pytest
# The normal build is in place; the others are found through PYTHONPATH, ahead of it. Safe path:
# the current folder must not come first.
VARIANT = RELAY_BUILD=$(CURDIR)/build/$(1) PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/$(1)/lib:$(CURDIR)/build/$(1)/tests
# Arguments for pytest, e.g. make test ARGS="tests/unit -k journal"
ARGS ?=
BENCH := $(PYTEST) benchmarks --benchmark-enable --benchmark-only
SANITIZED ?= tests/unit tests/wire
FUZZ_SECONDS ?= 600
SOAK_SECONDS ?= 600
BENCH_JSON ?= build/bench.json

SOURCES := $(wildcard relay/*.pyx relay/native/*.pxd relay/native/*.h tests/native/*.pyx tests/native/shown_*.pxi \
	protos/*.proto scripts/make_*.py)
LOCKS := requirements.lock requirements-dev.lock

# Linters look for their helpers there.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# These choose another variant; the targets below set them where they want one.
unexport RELAY_FUZZ RELAY_DEBUG RELAY_SANITIZE RELAY_BUILD_DIR RELAY_SHOWN

.DEFAULT_GOAL := help
.PHONY: help setup build demo kube-apiserver search-engines test soak bench bench-smoke bench-compare lint format types debug image \
	sanitize sanitize-address sanitize-thread kernel-tls fuzz lock clean distclean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: build/.system ## install the system packages that a build needs (Debian-like systems)

build: $(VENV)/.built ## .venv with the commands relay and kubearmor-relay-server

demo: build ## simulated nodes, the relay and an observer, for a few seconds
	$(BIN)/relay demo

kube-apiserver: ## the Kubernetes API server that the system tests run; skipped without Go
	@scripts/system.sh cluster
	@scripts/kube_apiserver.sh

search-engines: ## Elasticsearch and OpenSearch for the system tests; skipped without Java or Maven
	@scripts/search_engines.sh

test: build kube-apiserver search-engines ## the whole suite on the normal build
	$(PYTEST) $(ARGS)

soak: build ## churn, rotation and attack together for SOAK_SECONDS (600), the invariants checked all the time
	SOAK_SECONDS=$(SOAK_SECONDS) $(PYTEST) tests/system/test_soak.py -o faulthandler_timeout=$$(($(SOAK_SECONDS) + 300)) $(ARGS)

bench: build kube-apiserver ## all benchmarks; figures go to build/bench.json
	@scripts/system.sh peers
	$(BENCH) --benchmark-json=$(BENCH_JSON) $(ARGS)

bench-smoke: build kube-apiserver ## every benchmark, hardly long enough to measure anything
	@scripts/system.sh peers
	BENCH_SECONDS=0.2 BENCH_ROUNDS=1 $(BENCH) --benchmark-max-time=0.05 --benchmark-min-rounds=1 $(ARGS)

bench-compare: bench ## benchmarks against the committed baseline; fails on a figure that fell behind
	$(BIN)/python benchmarks/compare.py $(BENCH_JSON)

lint: build ## style, layers and leftovers of Python, Cython and shell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/cython-lint relay tests
	$(BIN)/lint-imports --no-logo
	@if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run; fi

format: build ## rewrite Python files in the one style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: build ## strict types, and the stub of the extension against the extension
	$(BIN)/mypy
	$(BIN)/stubtest --ignore-missing-stub --allowlist scripts/stubtest.allow relay._fastpath

debug: $(VENV)/.installed kube-apiserver ## the suite on a build with assertions (RELAY_DEBUG=1)
	RELAY_DEBUG=1 scripts/variant.sh debug
	$(call VARIANT,debug) $(PYTEST) $(ARGS)

sanitize: sanitize-address sanitize-thread ## native and wire tests under the sanitizers

sanitize-address: $(VENV)/.installed
	RELAY_SANITIZE=address,undefined scripts/variant.sh address-undefined
	$(call VARIANT,address-undefined) scripts/sanitized.sh address $(PYTEST) $(SANITIZED) $(ARGS)

sanitize-thread: $(VENV)/.installed
	RELAY_SANITIZE=thread scripts/variant.sh thread
	$(call VARIANT,thread) scripts/sanitized.sh thread $(PYTEST) $(SANITIZED) $(ARGS)

kernel-tls: build ## wire tests over TLS on a kernel that encrypts it, in a guest; skipped where there is none
	scripts/kernel_tls.sh $(ARGS)

fuzz: build ## fuzz targets for FUZZ_SECONDS each (600)
	@scripts/system.sh fuzz
	scripts/fuzz.sh $(FUZZ_SECONDS)

image: build ## the container image, by docker, podman or buildah, and its tests
	scripts/image.sh

lock: $(VENV)/.locked ## make the lock files again from pyproject.toml
	scripts/lock.sh

clean: ## remove what builds and tools made
	rm -rf build dist *.egg-info relay/*.so relay/kubearmor_pb2* relay/native/_schema.h relay/native/_json.h tests/native/_shown_parts.pxi tests/fuzz/_fuzz_parts.pxi
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks $(VENV)/.built $(VENV)/.installed
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf $(VENV)

build/.system: scripts/system.sh scripts/python.sh
	@scripts/system.sh build
	@mkdir -p build && touch $@

$(VENV)/.locked: requirements-dev.lock | build/.system
	@test -x $(BIN)/python || "$$(scripts/python.sh)" -m venv $(VENV)
	@echo "Installing the locked packages into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

# The .pth line makes the test-only module `shown` importable, after everything else.
$(VENV)/.installed: $(VENV)/.locked pyproject.toml setup.py
	@echo "Building and installing the relay into $(VENV)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e . \
		>build/install.log 2>&1 || { cat build/install.log >&2; exit 1; }
	@$(BIN)/python -c 'import pathlib, sysconfig; \
		pathlib.Path(sysconfig.get_path("purelib"), "relay-tests.pth").write_text("$(CURDIR)/build/normal/tests\n")'
	@touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES)
	RELAY_SHOWN=1 $(BIN)/python setup.py -q build_ext --inplace
	@touch $@
