#!/usr/bin/env bash
# Build the fuzz targets with clang and run each for some seconds:  scripts/fuzz.sh SECONDS [TARGET…]
set -euo pipefail
cd "$(dirname "$0")/.."

clang_works() {
    local out status=0
    out=$(mktemp)
    echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { (void)d; (void)n; return 0; }' |
        clang -x c -fsanitize=fuzzer,address - -o "$out" >/dev/null 2>&1 || status=1
    rm -f "$out"
    return $status
}

if ! clang_works; then
    echo "fuzz: skipped, no clang with libFuzzer here (Debian: clang and libclang-rt-dev)"
    exit 0
fi
RELAY_FUZZ=1 .venv/bin/python setup.py -q build_ext
exec .venv/bin/python tests/fuzz/run.py "$@"
