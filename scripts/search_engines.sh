#!/usr/bin/env bash
# Elasticsearch and OpenSearch for the system tests, from the Maven registry, in build/peers.
#
#   scripts/search_engines.sh                       fetch and unpack both, once
#   scripts/search_engines.sh run NAME PORT FOLDER [SETTING…]
#                                                   run one in the foreground; FOLDER keeps its configuration, data and log
#
# Where Java or Maven is missing, fetching is a message and exit code 0, and the tests that need an engine are
# skipped, saying so.
set -euo pipefail
cd "$(dirname "$0")/.."

elasticsearch=7.17.10
opensearch=2.19.1
peers=$PWD/build/peers
heap=512m
say() { printf '%s\n' "$*" >&2; }

# Fetches one and unpacks it beside its place, so that a test never sees half of it.
fetch() {
    local name=$1 version=$2
    [ ! -d "$peers/$name-$version" ] || return 0
    say "Fetching $name $version"
    local beside=$peers/.$name.$$
    mkdir -p "$beside"
    mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy \
        -Dartifact="org.$name.distribution.integ-test-zip:$name:$version:zip" -DoutputDirectory="$beside" >&2
    (cd "$beside" && jar --extract --file "$name-$version.zip")
    # The archive's file modes are lost to jar.
    chmod -R a+rX "$beside" && chmod a+x "$beside/$name-$version/bin/"*
    mv "$beside/$name-$version" "$peers/"
    rm -rf "$beside"
}

# Replaces this shell by the engine, as an ordinary user: both refuse to run as root.
run() {
    local name=$1 port=$2 folder=$3 version=${!1}
    local home as=()
    home=$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")
    mkdir -p "$folder/data" "$folder/logs" "$folder/tmp"
    cp -rn "$peers/$name-$version/config" "$folder/"
    # Its own folder is not this user's to write to.
    sed -i '/logs\//d' "$folder/config/jvm.options"
    if [ "$(id -u)" = 0 ]; then
        chown -R 65534:65534 "$folder"
        as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
    fi
    local options="-Xms$heap -Xmx$heap"
    exec "${as[@]}" env HOME="$folder" JAVA_HOME="$home" \
        ES_JAVA_HOME="$home" ES_PATH_CONF="$folder/config" ES_JAVA_OPTS="$options" ES_TMPDIR="$folder/tmp" \
        OPENSEARCH_JAVA_HOME="$home" OPENSEARCH_PATH_CONF="$folder/config" OPENSEARCH_JAVA_OPTS="$options" \
        OPENSEARCH_TMPDIR="$folder/tmp" \
        "$peers/$name-$version/bin/$name" -Ediscovery.type=single-node -Enetwork.host=127.0.0.1 \
        -Ehttp.port="$port" -Epath.data="$folder/data" -Epath.logs="$folder/logs" \
        -Ecluster.routing.allocation.disk.threshold_enabled=false "${@:4}"
}

case ${1:-fetch} in
    fetch)
        for program in java jar mvn; do
            if ! command -v $program >/dev/null; then
                say "note: $program is not installed, so the tests with a real search engine are skipped"
                exit 0
            fi
        done
        fetch elasticsearch $elasticsearch
        fetch opensearch $opensearch
        ;;
    run) run "${@:2}" ;;
    *)
        say "usage: scripts/search_engines.sh [run elasticsearch|opensearch PORT FOLDER [SETTING…]]"
        exit 2
        ;;
esac
