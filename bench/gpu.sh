#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bench/gpu.sh [BUILD [ARGUMENT…]]   On a machine with a GPU: builds, proves what needs one, measures. Needs no network;
# the compilers, Meson, CUDA's toolkit, liburing, xxHash and Python with NumPy must be there, libcheck should be.
# Arguments are bench/gpu.py's. Prints Markdown, writes bench/results/DATE-gpu.json.
set -euo pipefail
build=$(realpath -m -- "${1:-build-gpu}")
cd "$(dirname "$(readlink -f "$0")")/.."
[ -e "$build/build.ninja" ] || meson setup "$build" --buildtype=release -Ddebug=true -Dcuda=enabled -Dtests=auto >&2
ninja -C "$build" >&2
exec python3 bench/gpu.py "$build" "${@:2}"
