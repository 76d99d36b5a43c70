# SPDX-License-Identifier: Apache-2.0
"""Compares what a converted load gives with numpy's conversion of a plain read, tensor by tensor:
converted.py --dtype f16 TUNDISH FILE…, the command's SHA-256 beside numpy's bytes."""

import argparse
import hashlib
import json
import subprocess
import sys

import peer

parser = argparse.ArgumentParser()
parser.add_argument("--dtype", choices=["f16"], required=True)
parser.add_argument("tundish")
parser.add_argument("model")
options = parser.parse_args()

answer = subprocess.run([options.tundish, "digest", "--json", "--dtype", options.dtype, options.model], check=True,
                        stdout=subprocess.PIPE)
digests = {tensor["name"]: tensor["sha256"] for tensor in json.loads(answer.stdout)["tensors"]}
spans = peer.safetensors_spans([options.model])
wrong = len(digests.keys() ^ spans.keys())
for name in digests.keys() & spans.keys():
    wrong += digests[name] != hashlib.sha256(peer.plain(*spans[name], options.dtype)).hexdigest()
print(json.dumps({"wrong_tensors": wrong}))
sys.exit(1 if wrong else 0)
