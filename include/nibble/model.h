#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "nibble/bitsandbytes_config.h"
#include "nibble/generate.h"
#include "nibble/progress.h"

namespace nibble {

struct LoadedModel;  // internal

struct LoadModelOptions {
  /// Quantize while loading. A model that is quantized already must be of the same kind.
  std::optional<BitsAndBytesConfig> quantization_config = {};
  /// The same in nibble's words, for formats that bitsandbytes does not have: "int4", "int8-dynamic", "bf16", ...
  std::string format = {};
  int64_t block = 0;          ///< of 4-bit formats; 0 = 64
  bool double_quant = false;  ///< of 4-bit formats
  std::vector<std::string> skip = {};
  std::optional<DType> compute_dtype = {};  ///< of 4-bit formats; default: as the model's configuration says, else fp32
  std::string granularity = "channel";      ///< int8-dynamic: one weight scale per output row, or per "tensor"
  /// 4-bit formats, GGUF's blocks: what weights are multiplied with. "int16" or "int8": integers with one scale per 64
  /// activations, and no compute dtype; "fp32": activations as the compute dtype has them; "auto": fp32 for encoders,
  /// whose numbers are the result; else int16, unless a 16-bit compute dtype is asked for here. docs/performance.md has
  /// what each costs.
  std::string activations = "auto";
  std::string activation_range = "token";  ///< int8-dynamic: one range per token, or per "tensor" (all of a call)
  bool reduce_range = false;               ///< int8-dynamic: 127 activation steps instead of 255
  bool quantize_head = false;              ///< with a format: the output head or classifier too
  /// The output head of a language model, for running only: "keep", "nf4" (block 64) or "int8" (the rows of
  /// int8-dynamic, times activations in fp32). A head that is tied to the embedding becomes a matrix of its own beside
  /// it.
  std::string head = "keep";
  /// Where weights may be. "auto": layer by layer in memory ("cpu") as far as max_memory reaches, the others mapped
  /// from their file ("disk"), which is slow but needs no memory; "cpu" or "disk": all of them there.
  std::string device_map = "auto";
  /// With "auto": bytes by device. What "cpu" may take is 90 % of the available memory unless it is given.
  std::map<std::string, uint64_t> max_memory = {};
  /// PEFT adapter folders, all of them in use: their changes add up.
  std::vector<std::string> adapters = {};
  ProgressFn progress = {};
};

/// Where a layer's weights are. A layer is everything under "...layers.N", or a tensor outside of them.
struct LayerPlacement {
  std::string layer = {};
  std::string device = {};  ///< "cpu" = memory, "disk" = mapped from the file
  uint64_t bytes = 0;
};
using DeviceMap = std::vector<LayerPlacement>;

/// A causal language model in memory, with its tokenizer. Copies share the weights. One thread at a time.
class CausalLM {
 public:
  explicit CausalLM(std::shared_ptr<LoadedModel> model) : model_(std::move(model)) {}

  /// Continues a text. @throws Error{invalid_argument} when the prompt does not fit the context.
  Generation generate(std::string_view prompt, const GenerateOptions& options = {}) const;
  Generation generate(std::span<const int32_t> prompt_ids, const GenerateOptions& options = {}) const;
  /// Answers a conversation, through the model's chat template.
  Generation chat(const std::vector<ChatMessage>& messages, const GenerateOptions& options = {}) const;

  /// What the model predicts after each position: [ids.size(), vocab_size()] row-major.
  /// @throws Error{invalid_argument} when the ids do not fit the context.
  std::vector<float> logits(std::span<const int32_t> ids) const;
  /// The same for long texts: `take` is given the rows of some neighbouring positions at a time, and the first of
  /// those.
  void logits_in_portions(std::span<const int32_t> ids,
                          const std::function<void(int64_t first, std::span<const float> rows)>& take) const;

  bool has_tokenizer() const;
  /// With the special tokens that the tokenizer adds by itself. @throws Error{invalid_argument} without a tokenizer.
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  std::string decode(std::span<const int32_t> ids) const;
  /// The text that the chat template makes of a conversation, ready for the assistant's turn.
  std::string apply_chat_template(const std::vector<ChatMessage>& messages) const;

  int64_t vocab_size() const;
  int64_t context_length() const;
  /// Bytes of the weights as they are kept in memory.
  uint64_t weight_bytes() const;
  /// Where they are, in the order of loading.
  const DeviceMap& device_map() const;

  LoadedModel& internal() const { return *model_; }
  std::shared_ptr<LoadedModel> shared() const { return model_; }

 private:
  std::shared_ptr<LoadedModel> model_;
};

struct AutoModelForCausalLM {
  /// Loads a Hugging Face folder, a GGUF file or a model of the local hub cache ("org/name").
  ///
  ///     auto model = AutoModelForCausalLM::from_pretrained(
  ///         "smollm2-135m", {.quantization_config = BitsAndBytesConfig{.load_in_4bit = true}});
  ///
  /// @throws Error{io, format, unsupported, invalid_argument, resources}
  static CausalLM from_pretrained(const std::string& path, const LoadModelOptions& options = {});
};

}  // namespace nibble
