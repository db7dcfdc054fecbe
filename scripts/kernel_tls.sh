#!/usr/bin/env bash
# Run tests on a kernel that encrypts TLS (kTLS), whatever the machine's own kernel can: in User Mode Linux, a kernel
# that is a process of the user who starts it. It sees the machine's files, read-only, and has a network of its own.
#
#   scripts/kernel_tls.sh [ARGUMENT…]       arguments of pytest; by default all wire tests over TLS
#
#   GUEST_SECONDS=900                       the bound for all of it
#   GUEST_MEMORY=2G                         the guest's memory
#
# Where it cannot run, it says so and why, and its exit code is 0; else the exit code is pytest's.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
skip() {
    say "kernel TLS: SKIPPED: $*"
    exit 0
}

arguments=("$@")
# What the Go peers make of each other says nothing about the relay, and five hundred nodes are more than the guest's
# one CPU bears.
[ $# -gt 0 ] || arguments=(-q tests/wire -k "tls and not five_hundred" --ignore tests/wire/test_tls_peers.py)
seconds=${GUEST_SECONDS:-900}
[ -t 1 ] || export NO_COLOR=1
PATH=$PATH:/usr/sbin:/sbin

[ "$(uname -sm)" = "Linux x86_64" ] || skip "User Mode Linux is for x86-64, this is $(uname -sm)"
scripts/system.sh guest
for command in linux.uml modprobe ip; do
    command -v $command >/dev/null || skip "there is no command $command (Debian: apt-get install user-mode-linux kmod iproute2)"
done
modules=$(find /usr/lib/uml/modules -name tls.ko\* -path '*/net/tls/*' 2>/dev/null | head -n 1)
[ -n "$modules" ] || skip "User Mode Linux has come without the module tls"

# Peers that are compiled have to be there before: in the guest nothing is written. Without them their tests are skipped.
.venv/bin/python -m tests.peers.binaries >/dev/null 2>&1 || say "note: no peers in Go, so their tests are skipped"

# Everything of the guest's is in there; the guest may write to it.
shared=$(mktemp -d)
trap 'rm -rf "$shared"' EXIT
mkdir "$shared/lib"
ln -s /usr/lib/uml/modules "$shared/lib/modules"
cat >"$shared/modprobe" <<GUEST
#!/bin/sh
exec modprobe -d "$shared" "\$@"
GUEST
cat >"$shared/init" <<GUEST
#!/bin/sh
export PATH=$PATH:/usr/bin:/bin HOME=/run TMPDIR=/run CI=true PYTHONDONTWRITEBYTECODE=1
export HYPOTHESIS_STORAGE_DIRECTORY=/run/hypothesis ${NO_COLOR:+NO_COLOR=1}
mount -t proc proc /proc
mount -t sysfs sys /sys
echo 1 >/proc/sys/kernel/printk
mount -t tmpfs run /run
mount -t hostfs shared /mnt -o "$shared"
mkdir /dev/shm /run/netns && mount -t tmpfs shm /dev/shm
ln -s /proc/self/fd /dev/fd
ip link set lo up
ulimit -n 65536
stty -onlcr
# Ciphers are modules, too, and are asked for by name.
echo "$shared/modprobe" >/proc/sys/kernel/modprobe
"$shared/modprobe" tls && grep -qw tls /proc/sys/net/ipv4/tcp_available_ulp && echo yes >/mnt/ready
echo "Linux \$(uname -r), TCP with: \$(cat /proc/sys/net/ipv4/tcp_available_ulp)"
cd "$PWD"
timeout $seconds .venv/bin/python -m pytest -p no:cacheprovider $(printf '%q ' "${arguments[@]}")
echo \$? >/mnt/status
echo o >/proc/sysrq-trigger
sleep 60
GUEST
chmod +x "$shared/modprobe" "$shared/init"

say "Running in User Mode Linux: pytest ${arguments[*]}"
# The tests' words are on the guest's console; what the kernel says while it begins is not.
exec 3>&1
timeout --kill-after=10 $((seconds + 60)) linux.uml quiet loglevel=0 mem="${GUEST_MEMORY:-2G}" rootfstype=hostfs rootflags=/ ro \
    init="$shared/init" umid=guest uml_dir="$shared" con=null con0=null,fd:3 </dev/null >"$shared/boot" 2>&1 || true

if [ ! -e "$shared/ready" ]; then
    tail -n 15 "$shared/boot" >&2
    skip "the guest did not begin, or has no TLS; its last words are above"
fi
if [ ! -e "$shared/status" ]; then
    say "kernel TLS: the guest ended before the tests did"
    exit 1
fi
exit "$(cat "$shared/status")"
