#!/usr/bin/env bash
# Build the Kubernetes API server that the system tests run, into build/peers, from the Go module registry.
#
# Only when its sources are newer. Where Go or etcd is missing that is a message and exit code 0, and the
# tests that need it are skipped, saying so; a build that fails is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

module=tests/peers/cluster
binary=build/peers/kube-apiserver
say() { printf '%s\n' "$*" >&2; }

for program in go etcd openssl; do
    if ! command -v $program >/dev/null; then
        say "note: $program is not installed, so the tests with a real Kubernetes API server are skipped"
        exit 0
    fi
done

if [ -x $binary ] && [ -z "$(find $module -type f ! -name README.md -newer $binary)" ]; then
    exit 0
fi

say "Building the Kubernetes API server: about three minutes, the first time, and 2 GB of memory"
begin=$SECONDS
mkdir -p "${binary%/*}"
beside=$PWD/build/peers/.kube-apiserver.$$
trap 'rm -f "$beside"' EXIT
# Two packages at a time: their compilers need a few hundred MB each. Without symbols linking needs half the memory.
# Static: what is preloaded into a test's process stays out of it.
version=$(sed -n 's|^[[:space:]]*k8s.io/kubernetes v\([0-9.]*\)$|\1|p' $module/go.mod)
names=k8s.io/component-base/version
stamp="-X $names.gitVersion=v$version -X $names.gitMajor=${version%%.*} -X $names.gitMinor=$(cut -d. -f2 <<<"$version")"
env -u LD_PRELOAD CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -p=2" \
    go build -C $module -trimpath -ldflags "-s -w $stamp" -o "$beside" ./kube-apiserver
# Built beside and moved: a test that runs meanwhile never sees half of it.
mv "$beside" $binary
say "Built $binary $version in $((SECONDS - begin)) s"
