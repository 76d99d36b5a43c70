#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Finds a CUDA toolkit: nvcc, its headers (NVTX too) and the static runtime. Prints three paths, a line each; else says
# what is missing and fails. Looks at CUDA_HOME, PATH, the usual place, and the Python packages that
# scripts/setup.sh installs.
set -u

reason="no nvcc in CUDA_HOME, PATH, /usr/local/cuda or the cache folder's Python packages"

# first FILE…: the first of them that exists.
first() {
    for file in "$@"; do
        if [ -e "$file" ]; then
            printf '%s\n' "$file"
            return 0
        fi
    done
    return 1
}

# try FOLDER: prints the paths and ends where all three are in it.
try() {
    nvcc=$(first "$1/bin/nvcc") || return 0
    machine=$(uname -m)
    header=$(first "$1/include/cuda_runtime.h" "$1/targets/$machine-linux/include/cuda_runtime.h" \
        /usr/include/cuda_runtime.h) || { reason="$1 has no cuda_runtime.h"; return 0; }
    [ -e "$(dirname "$header")/nvtx3/nvToolsExt.h" ] || { reason="$1 has no nvtx3/nvToolsExt.h"; return 0; }
    library=$(first "$1/lib64/libcudart_static.a" "$1/lib/libcudart_static.a" \
        "$1/targets/$machine-linux/lib/libcudart_static.a" "/usr/lib/$machine-linux-gnu/libcudart_static.a") ||
        { reason="$1 has no libcudart_static.a"; return 0; }
    printf '%s\n%s\n%s\n' "$nvcc" "$(dirname "$header")" "$library"
    exit 0
}

[ -z "${CUDA_HOME:-}" ] || try "$CUDA_HOME"
on_path=$(command -v nvcc) && try "$(dirname "$(dirname "$(readlink -f "$on_path")")")"
try /usr/local/cuda
for folder in "${XDG_CACHE_HOME:-$HOME/.cache}"/tundish/cuda/lib/python3*/site-packages/nvidia/cu13; do
    try "$folder"
done
printf '%s\n' "$reason"
exit 1
