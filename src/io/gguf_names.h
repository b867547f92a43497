#pragma once
// The table of architectures in GGUF files: how llama.cpp names what Hugging Face names otherwise. Source of the names:
// gguf-py of github.com/ggml-org/llama.cpp (constants.py, tensor_mapping.py) and its converter.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "core/json.h"

namespace nibble {

/// "{}" stands for the number of the layer; ".weight" and ".bias" are left off.
struct GgufNameRow {
  std::string_view gguf, hf;
};

/// A metadata key (after "ARCHITECTURE.") and the member of config.json that it becomes.
struct GgufKeyRow {
  std::string_view gguf, hf;
  bool required = false;
};

struct GgufArchitecture {
  std::string_view name;        // general.architecture
  std::string_view model_type;  // of config.json
  std::string_view class_name;
  std::string_view fixed;  // members of config.json that the architecture implies, as JSON
  std::span<const GgufKeyRow> keys;
  std::span<const GgufNameRow> names;        // looked up first
  std::span<const GgufNameRow> other_names;  // shared with other architectures
  int64_t global_every = 0;     // every so many layers attention is global, in the others it slides; 0 = not said
  bool permuted_heads = false;  // rows of q and k are pair-interleaved per head
  bool shifted_norms = false;   // norms are stored as 1 + weight
  bool transposed = false;      // Hugging Face stores the dense linear layers as [in, out]
};

/// @throws Error{unsupported} listing the known architectures.
const GgufArchitecture& find_gguf_architecture(std::string_view name, const std::string& where);

/// "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight"; nothing for a name that is not in the table.
std::optional<std::string> hf_tensor_name(const GgufArchitecture& architecture, std::string_view gguf_name);

/// The inverse.
std::optional<std::string> gguf_tensor_name(const GgufArchitecture& architecture, std::string_view hf_name);

}  // namespace nibble
