#!/usr/bin/env python3
"""Makes rope_golden.inc: rotary frequencies of transformers 5.24 for every scaling that nibble knows.

    python make_rope_golden.py > rope_golden.inc        (needs torch and transformers)
"""
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

BASE = dict(hidden_size=64, num_attention_heads=4, num_hidden_layers=1, max_position_embeddings=64)
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 16,
            "short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 2.0],
            "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 9.0]}
CASES = {  # name: (parameters, length of the sequence)
    "plain": ({"rope_type": "default", "rope_theta": 10000.0}, 1),
    "linear": ({"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, 1),
    "dynamic short": ({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, 64),
    "dynamic long": ({"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}, 200),
    "llama3": ({"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32}, 1),
    "yarn": ({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
              "original_max_position_embeddings": 4096}, 1),
    "yarn mscale": ({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "mscale": 0.707,
                     "mscale_all_dim": 1.0, "beta_fast": 16.0, "beta_slow": 2.0,
                     "original_max_position_embeddings": 4096}, 1),
    "yarn untruncated": ({"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "truncate": False,
                          "attention_factor": 1.25, "original_max_position_embeddings": 4096}, 1),
    "longrope short": ({**LONGROPE, "factor": 4.0}, 16),
    "longrope long": ({**LONGROPE, "factor": 4.0}, 17),
    "longrope half": ({**LONGROPE, "partial_rotary_factor": 0.5, "attention_factor": 1.5,
                       "short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [1.0, 2.0, 4.0, 8.0]}, 20),
}


def default_frequencies(parameters):
    dim = BASE["hidden_size"] // BASE["num_attention_heads"]
    return 1.0 / parameters["rope_theta"] ** (torch.arange(0, dim, 2).float() / dim), 1.0


def main():
    import json
    print("// Made by make_rope_golden.py. name, rope_parameters, sequence length, attention factor, frequencies.")
    for name, (parameters, length) in CASES.items():
        config = LlamaConfig(**BASE, rope_parameters=parameters)
        if parameters["rope_type"] == "default":
            frequencies, factor = default_frequencies(parameters)
        else:
            frequencies, factor = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, "cpu", seq_len=length)
        values = ", ".join(f"{f:.9g}" for f in frequencies.tolist())
        print(f'{{"{name}", R"({json.dumps(parameters)})", {length}, {factor:.9g}, {{{values}}}}},')


main()
