#!/usr/bin/env bash
# Make the lock files from pyproject.toml: exact versions and hashes, no addresses.
# requirements.lock is what a container needs; requirements-dev.lock is that and all tools.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
    CUSTOM_COMPILE_COMMAND='make lock' .venv/bin/pip-compile -q --generate-hashes --allow-unsafe --strip-extras \
        --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options "$@" pyproject.toml
}
compile --output-file=requirements.lock
compile --extra=dev --all-build-deps --output-file=requirements-dev.lock --constraint=requirements.lock
