#!/usr/bin/env bash
# Look for the system packages that a task needs, and install what is missing where apt-get is at hand.
#
#   scripts/system.sh build     a C compiler, Python 3.11 or later with headers and venv, pkg-config, libnghttp2, OpenSSL
#   scripts/system.sh peers     haproxy and nginx, which the benchmarks run beside the relay (optional)
#   scripts/system.sh fuzz      clang and its runtime library, for libFuzzer (optional)
#   scripts/system.sh guest     User Mode Linux and what its guest needs, for the tests with kernel TLS (optional)
#   scripts/system.sh cluster   etcd and openssl, for the tests with a real Kubernetes API server (optional)
#
# An optional group that cannot be had is a message and exit code 0: what needs it is skipped.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/libfuzzer.sh
. "$here/libfuzzer.sh"
say() { printf '%s\n' "$*" >&2; }

# Prints the Debian packages that are missing for a group.
missing() {
    case $1 in
        build)
            command -v gcc >/dev/null || echo gcc libc6-dev
            command -v pkg-config >/dev/null || echo pkg-config
            pkg-config --exists 'libnghttp2 >= 1.52' 2>/dev/null || echo libnghttp2-dev
            pkg-config --exists 'openssl >= 3.0' 2>/dev/null || echo libssl-dev
            "$here/python.sh" >/dev/null 2>&1 || echo python3 python3-venv python3-dev
            ;;
        peers)
            PATH=$PATH:/usr/sbin
            command -v haproxy >/dev/null || echo haproxy
            command -v nginx >/dev/null || echo nginx-light
            ;;
        fuzz)
            { command -v clang >/dev/null && libfuzzer; } || echo clang libclang-rt-dev
            ;;
        guest)
            PATH=$PATH:/usr/sbin:/sbin
            command -v linux.uml >/dev/null || echo user-mode-linux
            command -v modprobe >/dev/null || echo kmod
            command -v ip >/dev/null || echo iproute2
            ;;
        cluster)
            command -v etcd >/dev/null || echo etcd-server
            command -v openssl >/dev/null || echo openssl
            ;;
        *)
            say "usage: scripts/system.sh build|peers|fuzz|guest|cluster"
            exit 2
            ;;
    esac
}

explain() {
    case $1 in
        build)
            say "error: the relay needs packages that are not installed: $2"
            say "Install them with"
            say "  Debian, Ubuntu:  apt-get install gcc libc6-dev pkg-config libnghttp2-dev libssl-dev python3 python3-venv python3-dev"
            say "  Fedora:          dnf install gcc pkgconf-pkg-config libnghttp2-devel openssl-devel python3 python3-devel"
            say "  Alpine:          apk add gcc musl-dev linux-headers pkgconf nghttp2-dev openssl-dev python3 python3-dev"
            exit 1
            ;;
        *)
            say "note: not installed, so what needs it is skipped: $2"
            exit 0
            ;;
    esac
}

group=${1:-build}
wanted=$(missing "$group" | xargs)
[ -n "$wanted" ] || exit 0
command -v apt-get >/dev/null || explain "$group" "$wanted"

if [ "$(id -u)" = 0 ]; then
    as_root=()
elif command -v sudo >/dev/null; then
    as_root=(sudo)
else
    say "note: neither root nor sudo, so nothing can be installed here"
    explain "$group" "$wanted"
fi

say "Installing system packages: $wanted"
# The runtime library of clang carries the compiler's version in its name, on Debian.
install() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null; }
"${as_root[@]}" apt-get update -qq || say "note: apt-get update failed; trying with the lists at hand"
if [ "$group" = fuzz ]; then
    install clang || explain "$group" "$wanted"
    version=$(clang -dumpversion | cut -d. -f1)
    libfuzzer || install "libclang-rt-$version-dev" || explain "$group" "$wanted"
else
    # shellcheck disable=SC2086  # one word a package
    install $wanted || explain "$group" "$wanted"
fi
wanted=$(missing "$group" | xargs)
[ -z "$wanted" ] || explain "$group" "$wanted"
