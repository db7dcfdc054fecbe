#!/usr/bin/env bash
# Build the fuzz targets with clang and run each for some seconds:  scripts/fuzz.sh SECONDS [TARGET…]
set -euo pipefail
cd "$(dirname "$0")/.."

# shellcheck source=scripts/libfuzzer.sh
. scripts/libfuzzer.sh

if ! libfuzzer; then
    echo "fuzz: skipped, no clang with libFuzzer here (Debian: clang and libclang-rt-dev)"
    exit 0
fi
RELAY_FUZZ=1 .venv/bin/python setup.py -q build_ext
exec .venv/bin/python tests/fuzz/run.py "$@"
