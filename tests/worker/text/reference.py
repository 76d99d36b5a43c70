# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of the packages tokenizers and sentencepiece, made of what a GGUF holds or trained on the spot, and our
own behind a pipe: what the tests of worker/text/ compare."""
import json
import os
import struct
import subprocess

import gguf
import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

BEGIN, SPECIAL = 1, 2
NORMAL, UNKNOWN, CONTROL, ADDED, UNUSED, BYTE = range(1, 7)
MARK = "\u2581"
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


class Refused(Exception):
    """What run_tokenizer says instead of an answer."""


class Ours:
    """run_tokenizer on a model."""

    def __init__(self, program, *arguments):
        self.process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        line = self.process.stdout.readline()
        if not line:
            raise Refused(self.process.communicate()[1].decode(errors="replace").strip() + f" ({self.close()})")
        self.told = json.loads(line)

    def close(self):
        self.process.communicate()
        return self.process.returncode

    def ask(self, request, item_bytes):
        self.process.stdin.write(request)
        self.process.stdin.flush()
        count = self.number()
        if count < 0:
            raise Refused(f"{count}: {self.process.stdout.read(self.number()).decode(errors='replace')}")
        return self.process.stdout.read(count * item_bytes) if item_bytes else count

    def number(self):
        four = self.process.stdout.read(4)
        if len(four) < 4:
            raise Refused(f"it ended: {self.process.communicate()[1].decode(errors='replace')[-2000:]}")
        return struct.unpack("<i", four)[0]

    def encode(self, text, flags=0):
        text = text.encode() if isinstance(text, str) else text
        answer = self.ask(b"e" + struct.pack("<ii", flags, len(text)) + text, 4)
        return list(struct.unpack(f"<{len(answer) // 4}i", answer))

    def seconds(self, text):
        return self.ask(b"t" + struct.pack("<ii", 0, len(text)) + text, 0) / 1e6

    def decode(self, tokens, at_start=True):
        return self.ask(b"d" + struct.pack(f"<ii{len(tokens)}i", at_start, len(tokens), *tokens), 1)

    def chat(self, messages):
        parts = [text.encode() for message in messages for text in message]
        answer = self.ask(b"c" + struct.pack("<i", len(messages)) +
                          b"".join(struct.pack("<i", len(part)) + part for part in parts), 4)
        return list(struct.unpack(f"<{len(answer) // 4}i", answer))

    def normalize(self, text):
        text = text.encode()
        return self.ask(b"n" + struct.pack("<i", len(text)) + text, 1).decode()


def character_bytes():
    """GPT-2's characters and the bytes that they stand for."""
    printing = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + i): byte for i, byte in enumerate(others)}


CHARACTER_BYTES = character_bytes()


class Vocabulary:
    """tokenizer.ggml.* of a file, in Python's types."""

    def __init__(self, path):
        fields = gguf.GGUFReader(path).fields
        self.values = {key.removeprefix("tokenizer.").removeprefix("ggml."): field.contents()
                       for key, field in fields.items() if key.startswith("tokenizer.")}
        self.texts = self.values["tokens"]
        self.kinds = self.values["token_type"]

    def of_kind(self, kind):
        return [text for text, found in zip(self.texts, self.kinds) if found == kind]

    def piece(self, token):
        """The bytes that a token stands for."""
        text, kind = self.texts[token], self.kinds[token]
        if kind in (UNKNOWN, CONTROL, UNUSED):
            return b""
        if kind == BYTE:
            return bytes([int(text[3:5], 16)])
        if self.values["model"] == "llama":
            return text.replace(MARK, " ").encode()
        if kind == NORMAL and all(character in CHARACTER_BYTES for character in text):
            return bytes(CHARACTER_BYTES[character] for character in text)
        return text.encode()


def split_words(name, tokenizer):
    """Sets what stands in front of the merges in a family of models, as their own tokenizer.json has it."""
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    with_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "gpt-2":
        tokenizer.pre_tokenizer = with_words
    elif name == "smollm":
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), with_words])
    else:
        expression = tokenizers.Regex(QWEN2 if name == "qwen2" else LLAMA3)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(expression, "isolated"), bytes_only])
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()


def special(text):
    return tokenizers.AddedToken(text, special=True, normalized=False)


def byte_pairs_of(vocabulary):
    """The reference of a GGUF's byte pairs."""
    values = vocabulary.values
    model = models.BPE(vocab={text: token for token, text in enumerate(vocabulary.texts)},
                       merges=[tuple(merge.split(" ")) for merge in values["merges"]],
                       ignore_merges=values["pre"] == "llama-bpe")
    tokenizer = tokenizers.Tokenizer(model)
    split_words(values["pre"], tokenizer)
    tokenizer.add_special_tokens([special(text) for text in vocabulary.of_kind(CONTROL)])
    tokenizer.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in vocabulary.of_kind(ADDED)])
    return tokenizer


def train_byte_pairs(name, lines, size=2000):
    """A tokenizer of the family, with a few special and added tokens; Llama 3's begins texts and ignores merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    split_words(name, tokenizer)
    # Not all bytes: those that no text has stand for nothing.
    alphabet = pre_tokenizers.ByteLevel.alphabet() if name != "gpt-2" else []
    tokenizer.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet,
                                                             show_progress=False))
    tokenizer.add_special_tokens([special(text) for text in
                                  ("<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<|im|>", "<|bb")])
    tokenizer.add_tokens([tokenizers.AddedToken("<tool>", normalized=False),
                          tokenizers.AddedToken("<left>", lstrip=True, normalized=False),
                          tokenizers.AddedToken("<right>", rstrip=True, normalized=False)])
    if name == "llama-bpe":
        tokenizer.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B",
                                          special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))])])
    return tokenizer


def train_words(lines, scheme, size=1200):
    """Llama 2's kind: U+2581 by a normalizer, or by Metaspace with the scheme."""
    specials = ["<unk>", "<s>", "</s>"]
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = tokenizers.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme=scheme, split=False)
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement=MARK, prepend_scheme="always", split=True)
    trained.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=size, show_progress=False, limit_alphabet=120))
    model = json.loads(trained.to_str())["model"]
    vocab = {text: token for token, text in enumerate([*specials, *tokens, *sorted(model["vocab"],
                                                                                  key=model["vocab"].get)])}
    tokenizer.model = models.BPE(vocab=vocab, merges=[tuple(merge) for merge in model["merges"]], byte_fallback=True,
                                 unk_token="<unk>", fuse_unk=True)
    tokenizer.add_special_tokens([special(text) for text in specials])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
    return tokenizer


def pieces_of(vocabulary, space_prefix=True):
    """The reference of a GGUF's SentencePiece vocabulary: a model put together again."""
    from sentencepiece import sentencepiece_model_pb2 as proto
    model = proto.ModelProto()
    kinds = {NORMAL: 1, UNKNOWN: 2, CONTROL: 3, ADDED: 4, UNUSED: 5, BYTE: 6}
    for text, score, kind in zip(vocabulary.texts, vocabulary.values["scores"], vocabulary.kinds):
        model.pieces.add(piece=text, score=score, type=kinds[kind])
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type = proto.TrainerSpec.BPE
    trainer.vocab_size = len(vocabulary.texts)
    trainer.byte_fallback = BYTE in vocabulary.kinds
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = space_prefix
    normalizer.remove_extra_whitespaces = False
    normalizer.escape_whitespaces = True
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


def train_pieces(folder, lines, byte_fallback):
    """A SentencePiece model as Llama's was made."""
    prefix = os.path.join(folder, "pieces")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=prefix, vocab_size=1500, model_type="bpe",
        byte_fallback=byte_fallback, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, character_coverage=0.995, minloglevel=2)
    return sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")


def write_gguf(path, name, values):
    """A model of one small tensor with these tokenizer.* values."""
    import numpy as np
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(name)
    for key, value in values.items():
        if key == "chat_template":
            writer.add_chat_template(value)
        elif isinstance(value, bool):
            writer.add_bool("tokenizer.ggml." + key, value)
        elif isinstance(value, int):
            writer.add_uint32("tokenizer.ggml." + key, value)
        elif isinstance(value, str):
            writer.add_string("tokenizer.ggml." + key, value)
        else:
            writer.add_array("tokenizer.ggml." + key, value)
    writer.add_tensor("token_embd.weight", np.zeros((1, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_folder(folder, tokenizer, config=None, merges_as_texts=False):
    """A Hugging Face folder: a model of one small tensor, tokenizer.json, tokenizer_config.json. Returns its path."""
    import numpy as np
    from safetensors.numpy import save_file
    os.makedirs(folder, exist_ok=True)
    root = json.loads(tokenizer.to_str())
    if merges_as_texts:
        root["model"]["merges"] = [" ".join(merge) for merge in root["model"]["merges"]]
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(root, file, ensure_ascii=merges_as_texts)
    if config is not None:
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
            json.dump(config, file)
    path = os.path.join(folder, "model.safetensors")
    save_file({"token_embd.weight": np.zeros((1, 32), np.float32)}, path)
    return path
