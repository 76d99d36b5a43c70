# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What ./demo and ./check share; sourced by both, from the root of the tree.

TUNDISH_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/tundish
TUNDISH_VENV=$TUNDISH_CACHE/venv
# nvcc and what it needs, where there is no toolkit; kept apart, as it is large and the tests' packages come and go.
TUNDISH_CUDA=$TUNDISH_CACHE/cuda
CUDA_PACKAGES=('nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*'
    'nvidia-nvtx==13.0.*')
PYTHON_PACKAGES=(gguf==0.19.0 libgguf==0.2.2 safetensors==0.8.0 numpy==2.3.4 tokenizers==0.23.3 sentencepiece==0.2.3
    protobuf==7.36.2 jinja2==3.1.6)

say() {
    printf '%s\n' "$*" >&2
}

# Runs a command as root, directly or by sudo; fails where neither is possible.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null && sudo -n "$@"
    fi
}

# install_packages PACKAGE…: Debian packages, those that are missing only.
install_packages() {
    local package missing=()

    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "No apt-get here: these Debian packages, or their like, must be there already: $*"
        return 0
    fi
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "Installing ${missing[*]} …"
    if ! as_root apt-get update -qq >&2 ||
        ! as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2; then
        say "Could not install them (no network, or neither root nor sudo): apt-get install ${missing[*]}"
        return 1
    fi
}

# The first python3 that can make a virtual environment, on standard output.
base_python() {
    local python

    for python in python3 /usr/bin/python3; do
        if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
            printf '%s\n' "$python"
            return 0
        fi
    done
    say "No python3 with venv and ensurepip: apt-get install python3-venv"
    return 1
}

# The Python packages that the tests take as references, in a virtual environment outside the tree.
install_python() {
    local python stamp

    stamp="$TUNDISH_VENV/.$(printf '%s_' "${PYTHON_PACKAGES[@]}" | tr -c 'a-zA-Z0-9._\n' _)"
    if [ -e "$stamp" ] && "$TUNDISH_VENV/bin/python3" -c \
        'import gguf, google.protobuf, jinja2, libgguf, numpy, safetensors, sentencepiece, tokenizers' 2>/dev/null; then
        return 0
    fi
    python=$(base_python) || return 1
    say "Installing ${PYTHON_PACKAGES[*]} into $TUNDISH_VENV …"
    mkdir -p "$TUNDISH_CACHE"
    "$python" -m venv --clear "$TUNDISH_VENV" || return 1
    if ! "$TUNDISH_VENV/bin/python3" -m pip install -q --disable-pip-version-check "${PYTHON_PACKAGES[@]}" >&2; then
        say "Could not install them: is there a network? The tests that need them are skipped."
        return 1
    fi
    touch "$stamp"
}

# A CUDA toolkit, from Python packages where there is none. Without one what needs it is left out, which is no failure.
install_cuda() {
    local python reason

    if reason=$(scripts/cuda_toolkit.sh); then
        return 0
    fi
    if [ "$(uname -m)" != x86_64 ]; then
        say "CUDA is left out: $reason"
        return 0
    fi
    say "Installing ${CUDA_PACKAGES[*]} into $TUNDISH_CUDA …"
    mkdir -p "$TUNDISH_CACHE"
    if python=$(base_python) && "$python" -m venv --clear "$TUNDISH_CUDA" &&
        "$TUNDISH_CUDA/bin/python3" -m pip install -q --disable-pip-version-check "${CUDA_PACKAGES[@]}" >&2; then
        return 0
    fi
    rm -rf "$TUNDISH_CUDA"
    say "Could not install them: is there a network? CUDA is left out: $reason"
}

# build FOLDER OPTION…: sets up or reconfigures, compiles.
build() {
    local folder=$1
    shift
    say "Building $folder …"
    if [ -f "$folder/build.ninja" ]; then
        meson setup --reconfigure "$folder" "$@" >"$folder/setup.log" 2>&1
    else
        mkdir -p "$folder"
        meson setup "$folder" "$@" >"$folder/setup.log" 2>&1
    fi || {
        cat "$folder/setup.log" >&2
        return 1
    }
    ninja -C "$folder" --quiet >"$folder/ninja.log" 2>&1 || {
        cat "$folder/ninja.log" >&2
        return 1
    }
}
