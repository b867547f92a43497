#!/usr/bin/env python3
"""Writes tests/data/tiny-llama/expected.json: what transformers (float32, CPU) makes of the bundled model.

    python3 tools/tiny_model_expected.py [FOLDER]

Perplexity is as docs/cli.md defines it: the text is tokenized in one go and cut into chunks that do not overlap, a
last shorter chunk is dropped, the first id of a chunk is not scored. Needs torch, transformers and tokenizers.
"""

import json
import math
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXTS = ["Anne was tenderness itself.", "  Two  spaces,\n\nand a new paragraph\t.", "It's 1816; she'll come.",
         "naïve café — “quoted” 日本語 👩‍👧", "<|im_start|>user\nHow do you do?<|im_end|>\n", ""]
PROMPT = "Captain Wentworth was"
MESSAGES = [{"role": "user", "content": "Have you seen Miss Elliot?"}]
GENERATED = 24
LOGITS_STEP = 32  # every 32nd logit of a position is recorded


def perplexity(model, ids, context):
    chunks = [ids[i:i + context] for i in range(0, len(ids), context)]
    if len(chunks) > 1 and len(chunks[-1]) < context: chunks.pop()
    total, scored = 0.0, 0
    for chunk in chunks:
        logits = model(torch.tensor([chunk])).logits[0, :-1].double()
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(chunk[1:]), reduction="sum").item()
        scored += len(chunk) - 1
    return {"context": context, "tokens": scored, "perplexity": math.exp(total / scored)}


def greedy(model, ids):
    """Without a stop rule. Also the smallest lead of a chosen logit: below about 1e-3 others may choose differently."""
    ids, margin = list(ids), math.inf
    for _ in range(GENERATED):
        best = model(torch.tensor([ids])).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[-GENERATED:], margin


def logits_of(model, ids):
    last = model(torch.tensor([ids])).logits[0, -1]
    top = last.topk(5)
    return {"every": LOGITS_STEP, "last_position": last[::LOGITS_STEP].tolist(),
            "top_ids": top.indices.tolist(), "top_logits": top.values.tolist()}


@torch.no_grad()
def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "tests/data/tiny-llama"
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    held_out = tokenizer((folder / "heldout.txt").read_text())["input_ids"]
    prompt_ids = tokenizer(PROMPT)["input_ids"]
    generated, margin = greedy(model, prompt_ids)
    chat_text = tokenizer.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    chat_ids = tokenizer(chat_text)["input_ids"]
    chat_generated, chat_margin = greedy(model, chat_ids)
    expected = {
        "made_by": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "heldout_tokens": len(held_out),
        "perplexity": [perplexity(model, held_out, context) for context in (128, 256, 512)],
        "tokenize": [{"text": text, "ids": tokenizer(text)["input_ids"]} for text in TEXTS],
        "logits": {"prompt": PROMPT, "ids": prompt_ids, **logits_of(model, prompt_ids)},
        "greedy": {"prompt": PROMPT, "ids": prompt_ids, "generated": generated, "smallest_margin": margin,
                   "text": tokenizer.decode(generated)},
        "chat": {"messages": MESSAGES, "text": chat_text, "ids": chat_ids, "generated": chat_generated,
                 "smallest_margin": chat_margin, "reply": tokenizer.decode(chat_generated)},
    }
    lines = [f'  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}' for key, value in expected.items()]
    (folder / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
