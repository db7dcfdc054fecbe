#!/usr/bin/env bash
# Build the container image with docker, podman or buildah, whichever is there and works, and test what came out.
#
#   scripts/image.sh [NAME]         default: kubearmor-relay-server:VERSION
#
#   ENGINE=docker|podman|buildah    the choice among them
#   BASE=IMAGE                      what the image is built on, instead of the Dockerfile's choice
#   PIP_INDEX_URL, PIP_EXTRA_INDEX_URL, PIP_TRUSTED_HOST, PIP_DEFAULT_TIMEOUT, PIP_CERT
#                                   pip's own variables reach the pip of the build, as build secrets:
#                                   no trace of them is left in the image
#
# buildah reads its own: BUILDAH_ISOLATION=chroot and STORAGE_DRIVER=vfs build where no container can run.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# Whether an engine is there, and can do something: a docker command may have no daemon behind it.
works() {
    command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1
}

engine=${ENGINE:-}
if [ -z "$engine" ]; then
    for name in docker podman buildah; do
        if works $name; then
            engine=$name
            break
        fi
    done
fi
if [ -z "$engine" ]; then
    say "error: neither docker, podman nor buildah works here; install one of them (Debian: apt-get install buildah)"
    exit 1
fi

version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' relay/__init__.py)
image=${1:-kubearmor-relay-server:$version}
arguments=(build --build-arg "VERSION=$version" -t "$image")
[ -z "${BASE:-}" ] || arguments+=(--build-arg "BASE=$BASE")

secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT
{
    echo '[global]'
    for setting in index-url extra-index-url trusted-host default-timeout; do
        variable=${setting^^}
        variable=PIP_${variable//-/_}
        [ -z "${!variable:-}" ] || printf '%s = %s\n' "$setting" "${!variable}"
    done
    [ -z "${PIP_CERT:-}" ] || echo 'cert = /run/secrets/ca'
} >"$secrets/pip.conf"
arguments+=(--secret "id=pip_conf,src=$secrets/pip.conf")
[ -z "${PIP_CERT:-}" ] || arguments+=(--secret "id=ca,src=$PIP_CERT")

say "Building $image with $engine"
DOCKER_BUILDKIT=1 "$engine" "${arguments[@]}" .
say "Built $image"
IMAGE=$image ENGINE=$engine .venv/bin/pytest -q tests/system/test_image.py
