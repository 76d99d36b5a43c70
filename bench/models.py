#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the models that the benches load: real shapes, random values, always the same bytes.

A model is a list of tensors (SHAPES) and a form (FORMS: container, element type of the matrices, files). A further
shape is one function and one line, a further form one line; --narrow makes any shape as small as a disk or a test
wants. Needs numpy, for GGUF the gguf package."""

import argparse
import json
import os
import shutil
import struct
import sys
from collections import namedtuple
from math import prod
from pathlib import Path

import numpy as np

CHUNK = 1 << 22  # elements drawn at a time
HEADER_BYTES_MAX = 16 << 20

# names are those of each format; shape is outermost first
Tensor = namedtuple("Tensor", "gguf hf shape")
Form = namedtuple("Form", "container dtype shards", defaults=(0,))


def qwen2(blocks, width, kv_width, ffn, vocab):
    """A Qwen2 with an output of its own: biases on q, k, v."""
    yield Tensor("token_embd.weight", "model.embed_tokens.weight", (vocab, width))
    for i in range(blocks):
        ours, theirs = f"blk.{i}.", f"model.layers.{i}."
        yield Tensor(ours + "attn_norm.weight", theirs + "input_layernorm.weight", (width,))
        for name, rows in (("q", width), ("k", kv_width), ("v", kv_width)):
            yield Tensor(ours + f"attn_{name}.weight", theirs + f"self_attn.{name}_proj.weight", (rows, width))
            yield Tensor(ours + f"attn_{name}.bias", theirs + f"self_attn.{name}_proj.bias", (rows,))
        yield Tensor(ours + "attn_output.weight", theirs + "self_attn.o_proj.weight", (width, width))
        yield Tensor(ours + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", (width,))
        yield Tensor(ours + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", (ffn, width))
        yield Tensor(ours + "ffn_up.weight", theirs + "mlp.up_proj.weight", (ffn, width))
        yield Tensor(ours + "ffn_down.weight", theirs + "mlp.down_proj.weight", (width, ffn))
    yield Tensor("output_norm.weight", "model.norm.weight", (width,))
    yield Tensor("output.weight", "lm_head.weight", (vocab, width))


def llama(blocks, width, kv_width, ffn, vocab):
    yield Tensor("token_embd.weight", "model.embed_tokens.weight", (vocab, width))
    for i in range(blocks):
        ours, theirs = f"blk.{i}.", f"model.layers.{i}."
        yield Tensor(ours + "attn_norm.weight", theirs + "input_layernorm.weight", (width,))
        for name, rows in (("q", width), ("k", kv_width), ("v", kv_width)):
            yield Tensor(ours + f"attn_{name}.weight", theirs + f"self_attn.{name}_proj.weight", (rows, width))
        yield Tensor(ours + "attn_output.weight", theirs + "self_attn.o_proj.weight", (width, width))
        yield Tensor(ours + "ffn_norm.weight", theirs + "post_attention_layernorm.weight", (width,))
        yield Tensor(ours + "ffn_gate.weight", theirs + "mlp.gate_proj.weight", (ffn, width))
        yield Tensor(ours + "ffn_up.weight", theirs + "mlp.up_proj.weight", (ffn, width))
        yield Tensor(ours + "ffn_down.weight", theirs + "mlp.down_proj.weight", (width, ffn))
    yield Tensor("output_norm.weight", "model.norm.weight", (width,))
    yield Tensor("output.weight", "lm_head.weight", (vocab, width))


def many(blocks, experts, width):
    """A great many small matrices, as mixtures of small experts and adapters have them."""
    for i in range(blocks):
        for j in range(experts):
            yield Tensor(f"blk.{i}.expert.{j}.weight", f"model.layers.{i}.mlp.experts.{j}.weight", (width, width))


QWEN_0_5B = dict(blocks=24, width=896, kv_width=128, ffn=4864, vocab=151936)
SHAPES = {  # each function is named as GGUF names the architecture
    "qwen2.5-0.5b": (qwen2, QWEN_0_5B),
    "llama2-7b": (llama, dict(blocks=32, width=4096, kv_width=4096, ffn=11008, vocab=32000)),  # 291 tensors
    "tiny": (qwen2, dict(blocks=2, width=128, kv_width=64, ffn=256, vocab=1000)),  # 1 MB as F16
    "many": (many, dict(blocks=50, experts=400, width=64)),  # 20,000 of 8 KiB as F16
}
FORMS = {
    "f16.gguf": Form("gguf", "F16"),
    "f16.safetensors": Form("safetensors", "F16"),
    "f32.gguf": Form("gguf", "F32"),
    "f32.safetensors": Form("safetensors", "F32"),
    "bf16.gguf": Form("gguf", "BF16"),
    "bf16.safetensors": Form("safetensors", "BF16"),
    "q4_0.gguf": Form("gguf", "Q4_0"),
    "f16-shards": Form("safetensors", "F16", shards=8),
}
# What run.py host loads, 7.8 GB.
HOST = [("qwen2.5-0.5b", form) for form in ("f16.safetensors", "f16.gguf", "f32.safetensors", "bf16.safetensors",
                                            "f16-shards")]
HOST += [("tiny", "f16.gguf"), ("many", "f16.safetensors")]
BLOCKS = {"F16": (1, 2), "BF16": (1, 2), "F32": (1, 4), "Q4_0": (32, 18)}  # elements and bytes
NARROWED = ("width", "kv_width", "ffn")


def to_bf16(values):
    """Round to nearest, ties to even; the values are finite."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


CONVERT = {"F16": lambda values: values.astype(np.float16), "BF16": to_bf16, "F32": lambda values: values}


def draw(index, tensor, dtype):
    """A tensor's bytes, piece by piece: the same values in every form but Q4_0."""
    generator = np.random.Generator(np.random.SFC64(index))
    left = prod(tensor.shape)
    while left > 0:
        count = min(left, CHUNK)
        yield draw_q4_0(generator, count) if dtype == "Q4_0" else draw_normal(generator, count, dtype)
        left -= count


def draw_normal(generator, count, dtype):
    values = generator.standard_normal(count, dtype=np.float32)
    values *= np.float32(0.02)
    return CONVERT[dtype](values)


def draw_q4_0(generator, count):
    """Random quants under scales of the size that they would have: quantising would take minutes."""
    elements, bytes_ = BLOCKS["Q4_0"]
    blocks = np.frombuffer(generator.bytes(count // elements * bytes_), np.uint8).reshape(-1, bytes_).copy()
    scales = generator.uniform(0.004, 0.008, len(blocks)).astype(np.float16)
    blocks[:, :2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks


def tensor_bytes(tensor, dtype):
    elements, bytes_ = BLOCKS[dtype]
    return prod(tensor.shape) // elements * bytes_


def write_safetensors(path, tensors, architecture, sizes, form):
    write_safetensors_file(path, list(enumerate(tensors)), form.dtype)


def write_safetensors_file(path, numbered, dtype):
    """numbered: (index among all tensors of the model, tensor)."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for _, tensor in numbered:
        end = offset + tensor_bytes(tensor, dtype)
        header[tensor.hf] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for index, tensor in numbered:
            for piece in draw(index, tensor, dtype):
                piece.tofile(file)
        finish(file)


def split(numbered, form):
    """Runs of tensors of about the same size; one that is longer than that has a run of its own."""
    runs, sizes = [], [tensor_bytes(tensor, form.dtype) for _, tensor in numbered]
    for count in range(form.shards, 0, -1):
        wanted, taken = sum(sizes) / count, 1
        while taken < len(sizes) and sum(sizes[:taken]) + sizes[taken] / 2 <= wanted:
            taken += 1
        runs.append(numbered[:taken])
        numbered, sizes = numbered[taken:], sizes[taken:]
    return runs


def write_shards(folder, tensors, architecture, sizes, form):
    """A folder as the hub has it: files of about the same size and an index of who is where."""
    folder.mkdir(exist_ok=True)
    total = sum(tensor_bytes(tensor, form.dtype) for tensor in tensors)
    weight_map = {}
    for number, shard in enumerate(split(list(enumerate(tensors)), form), 1):
        name = f"model-{number:05}-of-{form.shards:05}.safetensors"
        write_safetensors_file(folder / name, shard, form.dtype)
        weight_map.update((tensor.hf, name) for _, tensor in shard)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def gguf_dtype(tensor, dtype):
    return "F32" if len(tensor.shape) == 1 else dtype  # as converters do: norms and biases stay F32


def write_gguf(path, tensors, architecture, sizes, form):
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("bench")
    writer.add_block_count(sizes["blocks"])
    writer.add_context_length(32768)
    writer.add_embedding_length(sizes["width"])
    writer.add_feed_forward_length(sizes["ffn"])
    writer.add_head_count(sizes["width"] // 64)
    writer.add_head_count_kv(sizes["kv_width"] // 64)
    writer.add_rope_freq_base(1000000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{i}" for i in range(sizes["vocab"])])
    writer.add_token_types([1] * sizes["vocab"])
    for tensor in tensors:
        kind = gguf_dtype(tensor, form.dtype)
        writer.add_tensor_info(tensor.gguf, tensor.shape, np.dtype(np.float32), tensor_bytes(tensor, kind),
                               raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    file = writer.fout[0]
    writer.write_padding(file, file.tell())
    for index, tensor in enumerate(tensors):
        kind = gguf_dtype(tensor, form.dtype)
        for piece in draw(index, tensor, kind):
            piece.tofile(file)
        writer.write_padding(file, tensor_bytes(tensor, kind))
    finish(file)
    writer.close()


def finish(file):
    """Dirty pages would make the next direct reads wait for their write-back."""
    file.flush()
    os.fsync(file.fileno())


def data_bytes(tensors, form):
    kind = gguf_dtype if form.container == "gguf" else lambda tensor, dtype: dtype
    return sum(tensor_bytes(tensor, kind(tensor, form.dtype)) for tensor in tensors)


def complete(path, bytes_):
    if not path.exists():
        return False
    files = path.glob("*.safetensors") if path.is_dir() else [path]
    return bytes_ < sum(file.stat().st_size for file in files) < bytes_ + HEADER_BYTES_MAX


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def narrowed(sizes, divisor):
    """A row stays whole blocks of any form."""
    for key in NARROWED:
        if divisor < 1 or sizes.get(key, 0) % (divisor * BLOCKS["Q4_0"][0]):
            sys.exit(f"a {key} of {sizes.get(key)} cannot be divided by {divisor} into whole blocks")
    return {key: size // divisor if key in NARROWED else size for key, size in sizes.items()}


def make(folder, shape, form_name, narrow=1):
    """Returns the path of the model, written if it is not there. narrow: what its widths are divided by."""
    function, sizes = SHAPES[shape]
    sizes = narrowed(sizes, narrow)
    form = FORMS[form_name]
    tensors = list(function(**sizes))
    path = Path(folder) / (f"{shape}-{form_name}" if narrow == 1 else f"{shape}-narrow{narrow}-{form_name}")
    if not complete(path, data_bytes(tensors, form)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")  # a name without .part is a whole model
        remove(part)
        write = write_gguf if form.container == "gguf" else write_shards if form.shards else write_safetensors
        write(part, tensors, function.__name__, sizes, form)
        remove(path)
        part.rename(path)
    return path


def default_folder():
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tundish" / "bench"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forms", nargs="*", metavar="FORM",
                        help=f"{', '.join(FORMS)} (default: what run.py host loads, in all shapes)")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--narrow", type=int, default=1, metavar="N",
                        help="divide the shape's widths by N: llama2-7b as F16 takes 13.5 GB, with 2 about 3.5 GB")
    parser.add_argument("--folder", type=Path, default=default_folder())
    options = parser.parse_args()
    for form in options.forms:
        if form not in FORMS:
            parser.error(f"no form {form}: one of {', '.join(FORMS)}")
    for shape, form in [(options.shape, form) for form in options.forms] or HOST:
        path = make(options.folder, shape, form, options.narrow)
        print(path, flush=True)


if __name__ == "__main__":
    sys.exit(main())
