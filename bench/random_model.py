#!/usr/bin/env python3
"""Writes a Llama folder with random weights (Gaussian, bf16), to measure speed on a shape whose weights nobody needs.

    bench/random_model.py FOLDER                     the shape of TinyLlama-1.1B: 2.2 GB
    bench/random_model.py FOLDER --layers 2          its first two layers

No tokenizer: what measures gives ids. The weights repeat every 16 million values, which no kernel can tell.
"""

import argparse
import array
import json
import random
import struct
import sys
from pathlib import Path

REPEAT = 1 << 24


def shapes(args):
    kv = args.kv_heads * args.hidden // args.heads
    yield "model.embed_tokens.weight", [args.vocabulary, args.hidden]
    for i in range(args.layers):
        p = f"model.layers.{i}."
        for name, rows in [("q", args.hidden), ("k", kv), ("v", kv), ("o", args.hidden)]:
            yield f"{p}self_attn.{name}_proj.weight", [rows, args.hidden]
        for name in ("gate", "up"): yield f"{p}mlp.{name}_proj.weight", [args.feed_forward, args.hidden]
        yield p + "mlp.down_proj.weight", [args.hidden, args.feed_forward]
        for name in ("input", "post_attention"): yield f"{p}{name}_layernorm.weight", [args.hidden]
    yield "model.norm.weight", [args.hidden]
    yield "lm_head.weight", [args.vocabulary, args.hidden]


def gaussian_bf16():
    """REPEAT values, standard deviation 0.02: the upper halves of floats."""
    values = random.Random(1)
    few = array.array("f", (values.gauss(0, 0.02) for _ in range(1 << 18)))
    halves = array.array("H", few.tobytes())[1::2]
    return b"".join(array.array("H", values.sample(halves, len(halves))).tobytes() for _ in range(REPEAT // len(halves)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, value in [("layers", 22), ("hidden", 2048), ("feed-forward", 5632), ("heads", 32), ("kv-heads", 4),
                        ("vocabulary", 32000)]:
        parser.add_argument("--" + name, type=int, default=value)
    args = parser.parse_args()
    args.folder.mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": args.hidden,
              "intermediate_size": args.feed_forward, "num_hidden_layers": args.layers, "num_attention_heads": args.heads,
              "num_key_value_heads": args.kv_heads, "vocab_size": args.vocabulary, "max_position_embeddings": 2048,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
              "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2}
    (args.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    header, end = {}, 0
    for name, shape in shapes(args):
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    fill = gaussian_bf16()
    with open(args.folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, len(fill)): file.write(fill[:end - start])
    print(f"{args.folder}: {end / 1e9:.2f} GB")


if __name__ == "__main__":
    sys.exit(main())
