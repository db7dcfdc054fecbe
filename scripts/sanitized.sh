#!/usr/bin/env bash
# Run a command with a sanitizer's runtime library loaded first, since Python itself is not instrumented.
#
#   scripts/sanitized.sh address|thread COMMAND…
set -euo pipefail

kind=$1
shift
# pytest captures what a process prints, also its last words: reports go to files, shown at the end.
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
library() { gcc -print-file-name="$1"; }
case $kind in
    address)
        # libstdc++ as well: grpcio throws C++ exceptions, and the interceptor looks for the thrower
        # when it starts. Leaks are counted by the debug build: Python keeps too much at its end.
        preload="$(library libasan.so) $(library libstdc++.so.6)"
        export ASAN_OPTIONS="detect_leaks=0:halt_on_error=1:abort_on_error=0:exitcode=99:log_path=$reports/report:${ASAN_OPTIONS:-}"
        export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1:log_path=$reports/report:${UBSAN_OPTIONS:-}"
        ;;
    thread)
        # grpcio is not instrumented: its own locks would look like races.
        preload=$(library libtsan.so)
        export TSAN_OPTIONS="ignore_noninstrumented_modules=1:halt_on_error=1:exitcode=99:second_deadlock_stack=1:log_path=$reports/report:${TSAN_OPTIONS:-}"
        ;;
    *)
        echo "usage: scripts/sanitized.sh address|thread COMMAND…" >&2
        exit 2
        ;;
esac
# Allocate with malloc, so that each object has red zones of its own.
export PYTHONMALLOC=malloc
# The thread sanitizer wants its shadow memory at fixed addresses, which much randomisation disturbs.
prefix=()
if [ "$kind" = thread ] && setarch "$(uname -m)" -R true 2>/dev/null; then
    prefix=(setarch "$(uname -m)" -R)
fi
status=0
env LD_PRELOAD="$preload" "${prefix[@]}" "$@" || status=$?
if compgen -G "$reports/report*" >/dev/null; then
    echo "The sanitizer has found:" >&2
    head -n 120 "$reports"/report* >&2
    [ $status != 0 ] || status=99
fi
exit $status
