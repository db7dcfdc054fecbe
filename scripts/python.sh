#!/usr/bin/env bash
# Print the path of a Python that the relay can be built with: 3.11 or later, with venv and headers.
# PYTHON=… overrides the choice.
set -euo pipefail

for name in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14 /usr/bin/python3}; do
    command -v "$name" >/dev/null || continue
    if "$name" - 2>/dev/null <<'END'
import ensurepip, os, sys, sysconfig, venv
headers = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(0 if sys.version_info >= (3, 11) and os.path.exists(headers) else 1)
END
    then
        "$name" -c 'import sys; print(sys.executable)'
        exit 0
    fi
done
echo "error: no Python 3.11 or later with venv and headers (Debian: python3 python3-venv python3-dev)" >&2
exit 1
