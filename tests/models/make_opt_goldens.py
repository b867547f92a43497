#!/usr/bin/env python3
"""Makes tests/data/opt and tests/data/opt-projected: tiny random OPT models and what transformers computes with them.

    ~/.cache/nibble-peers/bin/python tests/models/make_opt_goldens.py

`opt` is shaped as most models are; `opt-projected` as OPT 350M: norms behind, none at the end, words narrower than the
rest. Beside each model golden.safetensors has, in float32, with eager attention:

    input_ids.<i>, logits.<i>, hidden.<i>.<k>   a prompt, its logits, hidden states (0: embeddings, the last: what the
                                                head sees)
    generated.<i>, step_logits.<i>              greedy tokens with a cache, and the logits they are taken from
    batch.*, loss, grad.<parameter>             a batch, its loss, and the gradient of every parameter
"""

import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import OPTConfig, OPTForCausalLM

DATA = Path(__file__).resolve().parent.parent / "data"
SHAPE = dict(vocab_size=128, num_hidden_layers=2, max_position_embeddings=64, dropout=0.0)
MODELS = {"opt": dict(SHAPE, hidden_size=64, ffn_dim=128, num_attention_heads=4),
          "opt-projected": dict(SHAPE, hidden_size=48, ffn_dim=80, num_attention_heads=3, word_embed_proj_dim=32,
                                do_layer_norm_before=False)}
PROMPTS, STEPS = [12, 21], 12


def random_model(options):
    """Norms and biases are random too, so that a forgotten one shows. All values are exact in bfloat16."""
    torch.manual_seed(11)
    model = OPTForCausalLM._from_config(OPTConfig(**options), attn_implementation="eager").eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("bias"): values.normal_(std=0.1)
            elif "layer_norm" in name: values.normal_(mean=1.0, std=0.2)
            else: values.normal_(std=0.15)
            values.copy_(values.bfloat16())
    return model


def ids(seed, count):
    return torch.tensor([random.Random(seed + i).randrange(3, SHAPE["vocab_size"]) for i in range(count)])


@torch.no_grad()
def predictions(model, prompt):
    hidden = model(prompt[None], output_hidden_states=True).hidden_states
    out = {"input_ids": prompt, "logits": model(prompt[None]).logits[0]}
    out |= {f"hidden.{k}": h[0] for k, h in enumerate(hidden)}
    cache, rows, tokens, following = None, [], [], prompt[None]
    for _ in range(STEPS):
        result = model(following, past_key_values=cache, use_cache=True)
        cache = result.past_key_values
        rows.append(result.logits[0, -1])
        tokens.append(int(rows[-1].argmax()))
        following = torch.tensor([tokens[-1:]])
    best = torch.stack(rows).topk(2).values
    assert (best[:, 0] - best[:, 1]).min() > 1e-3, "two tokens are equally likely; take another seed"
    return out | {"generated": torch.tensor(tokens), "step_logits": torch.stack(rows)}


def gradients(model):
    """Of three sequences, two of them padded; the first tokens of each are not learnt."""
    inputs, mask = torch.ones(3, 16, dtype=torch.int64), torch.zeros(3, 16, dtype=torch.int64)
    for i, length in enumerate([16, 11, 7]):
        inputs[i, :length], mask[i, :length] = ids(1000 * i, length), 1
    labels = torch.where(mask.bool(), inputs, -100)
    labels[:, :2] = -100
    loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
    loss.backward()
    out = {"batch.input_ids": inputs, "batch.attention_mask": mask, "batch.labels": labels, "loss": loss.reshape(1)}
    return out | {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}


def main():
    for name, options in MODELS.items():
        model = random_model(options)
        out = {}
        for i, count in enumerate(PROMPTS):
            out |= {".".join([key.split(".")[0], str(i), *key.split(".")[1:]]): value
                    for key, value in predictions(model, ids(7 * i, count)).items()}
        out |= gradients(model)
        model.bfloat16().save_pretrained(DATA / name)
        (DATA / name / "generation_config.json").unlink(missing_ok=True)
        save_file({key: value.detach().contiguous() for key, value in out.items()}, DATA / name / "golden.safetensors")


if __name__ == "__main__":
    main()
