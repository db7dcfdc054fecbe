# shellcheck shell=bash
# Sourced by the scripts beside it.

# Whether clang can link a fuzz target.
libfuzzer() {
    local out status=0
    out=$(mktemp)
    echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { (void)d; (void)n; return 0; }' |
        clang -x c -fsanitize=fuzzer,address - -o "$out" >/dev/null 2>&1 || status=1
    rm -f "$out"
    return $status
}
