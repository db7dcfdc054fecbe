#!/usr/bin/env bash
# Build one variant (debug, address-undefined, thread) into build/<variant>: an importable copy of
# the package in lib, the test module in tests. RELAY_DEBUG or RELAY_SANITIZE says what it is.
set -euo pipefail
cd "$(dirname "$0")/.."

variant=$1
# Modules that were deleted or renamed must not live on in the copy.
[ ! -d "build/$variant/lib" ] || find "build/$variant/lib" -name '*.py' -delete
RELAY_SHOWN=1 RELAY_BUILD_DIR="build/$variant" .venv/bin/python setup.py -q build 2> >(grep -v 'byte-compiling is disabled' >&2)
