"""GGUF files of the model families, written with the real gguf package: its names of tensors and keys, and the changes
to the values that llama.cpp's converter makes (convert_hf_to_gguf.py)."""

import gguf
import numpy as np

# model_type of config.json: the architecture in GGUF
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "smollm3": "smollm3",
                 "gemma2": "gemma2", "gemma3_text": "gemma3", "phi3": "phi3", "olmo2": "olmo2", "gpt2": "gpt2"}
PERMUTED = {"llama", "mistral", "smollm3"}  # rotary halves become neighbours
GEMMA = {"gemma2", "gemma3_text"}  # norms as 1 + w
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def first(config, *keys):
    return next((config[key] for key in keys if config.get(key) is not None), None)


def permute(weights, heads):
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def converted(name, tensor, config):
    family, heads = config["model_type"], config.get("num_attention_heads")
    if family in PERMUTED and ".q_proj." in name: return permute(tensor, heads)
    if family in PERMUTED and ".k_proj." in name: return permute(tensor, first(config, "num_key_value_heads") or heads)
    if family in GEMMA and name.endswith("norm.weight"): return tensor + 1
    if family == "gpt2" and name.endswith(CONV1D): return tensor.T
    return tensor


def add_keys(writer, config):
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    heads, width = first(config, "num_attention_heads", "n_head"), first(config, "hidden_size", "n_embd")
    head_dim = config.get("head_dim") or width // heads
    keys = [(writer.add_context_length, first(config, "max_position_embeddings", "n_positions")),
            (writer.add_embedding_length, width),
            (writer.add_block_count, first(config, "num_hidden_layers", "n_layer")),
            (writer.add_feed_forward_length, first(config, "intermediate_size", "n_inner") or 4 * width),
            (writer.add_head_count, heads),
            (writer.add_head_count_kv, config.get("num_key_value_heads")),
            (writer.add_key_length, head_dim), (writer.add_value_length, head_dim),
            (writer.add_layer_norm_rms_eps, config.get("rms_norm_eps")),
            (writer.add_layer_norm_eps, config.get("layer_norm_epsilon")),
            (writer.add_rope_freq_base, rope.get("rope_theta")),
            (writer.add_rope_dimension_count, int(head_dim * rope.get("partial_rotary_factor", 1)) if rope else None),
            (writer.add_sliding_window, config.get("sliding_window")),
            (writer.add_attn_logit_softcapping, config.get("attn_logit_softcapping")),
            (writer.add_final_logit_softcapping, config.get("final_logit_softcapping"))]
    for add, value in keys:
        if value is not None: add(value)


def write_gguf(path, config, tensors):
    """tensors: float32 arrays by their names in the Hugging Face folder."""
    name = ARCHITECTURES[config["model_type"]]
    arch = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(arch, first(config, "num_hidden_layers", "n_layer"))
    writer = gguf.GGUFWriter(path, name)
    add_keys(writer, config)
    for hf_name, tensor in tensors.items():
        gguf_name = names.get_name(hf_name, try_suffixes=(".weight", ".bias"))
        assert gguf_name, f"gguf has no name for {hf_name}"
        writer.add_tensor(gguf_name, np.ascontiguousarray(converted(hf_name, tensor, config)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
