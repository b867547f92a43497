#!/usr/bin/env python3
"""Trains tests/data/tiny-llama: a Llama of 0.4 M parameters with a tokenizer of its own, small enough to be bundled.

Text: the six novels of Jane Austen (public domain), as the Debian package r-cran-janeaustenr holds them:

    apt-get download r-cran-janeaustenr          # 1.6 MB; nothing needs to be installed
    python3 tools/make_tiny_model.py --deb r-cran-janeaustenr_1.0.0-1_all.deb

Needs torch, transformers, tokenizers, safetensors and dpkg-deb; about 20 minutes on one core. One chapter is held out
and written as heldout.txt. tools/tiny_model_expected.py then records what transformers makes of the result.
"""

import argparse
import json
import math
import random
import re
import struct
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # ids 0, 1, 2
END_OF_TEXT, IM_END = 0, 2
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
HELD_OUT_BOOK = "Persuasion"
HELD_OUT_BYTES = 30_000
CHAT_SHARE = 0.15  # of the paragraphs pairs, shown as question and answer

# Every row is a multiple of 64 long, so that 4-bit blocks end with the rows.
MODEL = dict(vocab_size=512, hidden_size=128, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, head_dim=32, max_position_embeddings=512, rms_norm_eps=1e-5, hidden_act="silu",
             tie_word_embeddings=True, attention_bias=False, mlp_bias=False, bos_token_id=0, eos_token_id=0)


def read_books(deb):
    """The lines of each novel, by title. R stores a data set as a 4-byte length and a zlib stream of an XDR vector."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["dpkg-deb", "-x", deb, folder], check=True)
        data = (Path(folder) / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    books = {}
    while data:
        stream = zlib.decompressobj()
        lines = read_strings(stream.decompress(data[4:]))
        data = stream.unused_data
        books[lines[0].strip()] = lines
    return books


def read_strings(xdr):
    """R serialization, version 2 or 3: a header, then one vector of strings (type 16)."""
    at = 14 if struct.unpack_from(">i", xdr, 2)[0] == 2 else 18 + struct.unpack_from(">i", xdr, 14)[0]
    flags, count = struct.unpack_from(">ii", xdr, at)
    assert flags & 255 == 16, "the package holds something else than character vectors"
    at, strings = at + 8, []
    for _ in range(count):
        length = struct.unpack_from(">i", xdr, at + 4)[0]
        strings.append(xdr[at + 8:at + 8 + length].decode())
        at += 8 + length
    return strings


def paragraphs(lines):
    """Joins the wrapped lines; underscores (italics in the source) go."""
    text = "\n".join(lines).replace("_", "")
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text)]
    return [part for part in parts if part]


def split_held_out(books):
    """The end of one novel, from a paragraph's beginning, is kept away from training."""
    assert HELD_OUT_BOOK in books, sorted(books)
    train, held_out = [], []
    for title in sorted(books):
        parts = paragraphs(books[title])
        if title == HELD_OUT_BOOK:
            while sum(len(part) + 2 for part in held_out) + len(parts[-1]) < HELD_OUT_BYTES:
                held_out.insert(0, parts.pop())
        train.append(parts)
    return train, "\n\n".join(held_out) + "\n"


def train_tokenizer(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=MODEL["vocab_size"], special_tokens=SPECIAL, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def chat(question, answer):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"


def training_ids(tokenizer, books, rng):
    """Prose, with some pairs of neighbouring paragraphs in the chat form in between."""
    documents = []
    for parts in books:
        start = 0
        while start < len(parts):
            length = rng.randint(8, 40)
            run = parts[start:start + length]
            start += length
            documents.append("\n\n".join(run) + SPECIAL[END_OF_TEXT])
            short = [(a, b) for a, b in zip(run, run[1:]) if len(a) < 300 and len(b) < 600]
            for question, answer in rng.sample(short, min(len(short), math.ceil(CHAT_SHARE * len(run)))):
                documents.append(chat(question, answer) + SPECIAL[END_OF_TEXT])
    rng.shuffle(documents)
    return torch.tensor([i for encoding in tokenizer.encode_batch(documents) for i in encoding.ids])


def train(ids, held_out_ids, steps, batch, rng):
    model = LlamaForCausalLM(LlamaConfig(**MODEL, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}))
    model.train()
    matrices = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}],
                                  lr=1.0, betas=(0.9, 0.98))
    length, began = 256, time.time()
    for step in range(steps):
        if step == steps * 9 // 10: length, batch = 512, batch // 2  # the last tenth on the full context
        warm, left = min(1.0, (step + 1) / 50), 1.0 - step / steps
        for group in optimizer.param_groups: group["lr"] = 6e-3 * warm * max(left, 0.01)
        starts = [rng.randrange(len(ids) - length - 1) for _ in range(batch)]
        block = torch.stack([ids[s:s + length + 1] for s in starts])
        logits = model(input_ids=block[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), block[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step + 1 == steps:
            print(f"step {step} loss {loss.item():.3f} held out {held_out_loss(model, held_out_ids):.3f} "
                  f"({time.time() - began:.0f} s)", flush=True)
    return model.eval()


def held_out_loss(model, ids):
    with torch.no_grad():
        block = ids[:len(ids) // 256 * 256].view(-1, 256)
        logits = model(input_ids=block[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), block[:, 1:].flatten()).item()


def write_model(out, model, tokenizer):
    config = dict(MODEL, architectures=["LlamaForCausalLM"], model_type="llama", torch_dtype="bfloat16",
                  rope_theta=10000.0, initializer_range=0.02, use_cache=True)
    chat_config = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token=SPECIAL[0], eos_token=SPECIAL[0],
                       unk_token=SPECIAL[0], model_max_length=512, clean_up_tokenization_spaces=False,
                       additional_special_tokens=SPECIAL[1:], chat_template=CHAT_TEMPLATE)
    generation = dict(bos_token_id=END_OF_TEXT, eos_token_id=[END_OF_TEXT, IM_END], do_sample=False)
    for name, value in [("config.json", config), ("tokenizer_config.json", chat_config),
                        ("generation_config.json", generation)]:
        (out / name).write_text(json.dumps(value, indent=2) + "\n")
    (out / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + "\n")
    tensors = {name: value.detach().to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()
               if name != "lm_head.weight"}  # tied: stored once
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deb", required=True, help="the package file of r-cran-janeaustenr")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "tests/data/tiny-llama")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(7)
    torch.set_num_threads(args.threads)
    rng = random.Random(7)
    books, held_out = split_held_out(read_books(args.deb))
    tokenizer = train_tokenizer(part for parts in books for part in parts)
    ids = training_ids(tokenizer, books, rng)
    held_out_ids = torch.tensor(tokenizer.encode(held_out).ids)
    print(f"{len(ids)} ids to train on, {len(held_out_ids)} held out "
          f"({len(held_out.encode()) / len(held_out_ids):.2f} bytes each)", flush=True)
    model = train(ids, held_out_ids, args.steps, args.batch, rng)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "heldout.txt").write_text(held_out)
    write_model(args.out, model, tokenizer)
    print(f"wrote {args.out}: {sum(f.stat().st_size for f in args.out.iterdir())} bytes")


if __name__ == "__main__":
    main()
