#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs the peers of requirements.txt into a virtual environment of their own and prints the path of its python:
#     bench/peers/setup.sh [FOLDER]      (default: ~/.cache/tundish/peers)
# About 7 GB: pip's ordinary torch comes with libraries for GPUs, which no peer uses here.
set -euo pipefail

here=$(dirname "$(readlink -f "$0")")
cd "$here/../.."
. scripts/setup.sh

venv=${1:-$TUNDISH_CACHE/peers}
# As in scripts/setup.sh: a stamp says what is there, so that a second run costs nothing.
stamp=$venv/.requirements-$(sha256sum <bench/peers/requirements.txt | cut -c 1-16)
if [ ! -e "$stamp" ]; then
    python=$(base_python)
    say "Installing the peers into $venv …"
    mkdir -p "$(dirname "$venv")"
    "$python" -m venv --clear "$venv"
    "$venv/bin/python3" -m pip install -q --disable-pip-version-check -r bench/peers/requirements.txt >&2
    touch "$stamp"
fi
printf '%s\n' "$venv/bin/python3"
