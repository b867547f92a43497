#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nibble/dtype.h"

namespace nibble {

enum class PlanTask { inference, finetune };
enum class TrainingMethod { lora, qlora, full };  ///< qlora: lora over a quantized base, nf4 unless `format` says
enum class OptimizerKind { adamw, adamw8bit, sgd };

/// @throws Error{invalid_argument} naming the known words.
PlanTask parse_plan_task(const std::string& name);
TrainingMethod parse_finetune_method(const std::string& name);
OptimizerKind parse_optimizer(const std::string& name);

/// What the memory is to be computed for.
struct PlanOptions {
  std::string format = {};              ///< of the Linear layers, as `quantize` has it; "" = as the model is
  bool double_quant = false;            ///< 4-bit formats
  int64_t block = 0;                    ///< 4-bit formats; 0 = 64
  std::string granularity = "channel";  ///< int8-dynamic
  std::vector<std::string> skip = {};   ///< layers to keep
  uint64_t max_shard_size = 5'000'000'000;

  PlanTask task = PlanTask::inference;
  int64_t context = 0;        ///< positions, in training tokens per sequence; 0 = the model's own, at most 4096
  int64_t batch = 1;          ///< sequences at the same time
  int64_t prompt_tokens = 0;  ///< the longest prompt; 0 = as long as the context
  std::string head = "keep";  ///< as LoadModelOptions has it; inference only
  std::optional<DType> kv_dtype = {};  ///< f32, f16, bf16 or i8; nullopt = as GenerateOptions has it

  TrainingMethod method = TrainingMethod::qlora;
  int64_t lora_r = 16;
  std::vector<std::string> target_modules = {};  ///< suffixes of names; empty = all Linear layers but the head
  OptimizerKind optimizer = OptimizerKind::adamw;
  bool gradient_checkpointing = false;

  std::optional<uint64_t> memory = {};  ///< bytes that there are
};

/// Bytes of the weights as they are stored. Of a model that is stored quantized already, `linears` holds all pieces.
struct WeightBytes {
  uint64_t linears = 0;     ///< matrices of the layers: codes, or dense values
  uint64_t embeddings = 0;  ///< tokens, positions, segments
  uint64_t head = 0;        ///< the output head or classifier, unless it is the embedding again
  uint64_t norms = 0;
  uint64_t biases = 0;
  uint64_t scales = 0;        ///< one per block or row
  uint64_t double_quant = 0;  ///< what decodes the scales when they are quantized too
  uint64_t tables = 0;        ///< levels and descriptions that the file format repeats for every matrix
  uint64_t other = 0;         ///< tensors in the files that the model does not use

  uint64_t total() const;
};

/// Training at one sequence length.
struct TrainingLength {
  int64_t context = 0;
  uint64_t activation_bytes = 0;               ///< every layer's intermediate results are kept
  uint64_t activation_bytes_checkpointed = 0;  ///< only each layer's input is, the rest is computed again
  uint64_t total_bytes = 0, total_bytes_checkpointed = 0;
};

struct MemoryPlan {
  std::string model = {}, architecture = {};
  std::string format = {};  ///< of the Linear layers
  bool double_quant = false;
  int64_t block = 0;      ///< 0 = the format has none
  std::string head = {};  ///< as PlanOptions has it
  PlanTask task = PlanTask::inference;
  int64_t parameters = 0;
  int64_t context = 0, batch = 1, context_length = 0;  ///< context_length: what the model was made for

  WeightBytes weights = {};
  uint64_t weights_bytes = 0;   ///< weights.total(), as stored
  uint64_t file_bytes = 0;      ///< of the safetensors files that `quantize` writes, headers included; 0 = as it is
  uint64_t resident_bytes = 0;  ///< the weights in memory, with what computing adds and without what is not used
  DType kv_dtype = DType::f32;  ///< of the cache
  uint64_t kv_cache_bytes = 0;
  uint64_t prefill_bytes = 0, decode_bytes = 0;  ///< activations and workspace: of the prompt, of one token
  uint64_t activation_bytes = 0;                 ///< the larger of the two; in training, what is kept for backward
  int64_t trainable_parameters = 0;
  uint64_t lora_bytes = 0, gradient_bytes = 0, optimizer_bytes = 0;
  uint64_t program_bytes = 0;  ///< the program itself and its tokenizer, about
  uint64_t total_bytes = 0;    ///< resident_bytes and everything below it

  std::vector<TrainingLength> lengths = {};  ///< finetune: at 512, 1024, ... up to the model's own length or 32768

  // With options.memory:
  bool fits = true;
  int64_t largest_context_that_fits = 0;  ///< at this batch; 0 = none
  int64_t largest_batch_that_fits = 0;    ///< at this context; 0 = none
  std::vector<std::string> advice = {};   ///< what to change, or what else there is room for
};

/// Computes memory by part, from config.json and the format's layout; weights are never read.
///
///     MemoryPlan p = plan("llama-2-7b", {.format = "nf4", .context = 4096, .memory = 8'000'000'000});
///
/// @param model  a folder (with or without weights), a config.json, a .gguf file, a hub id in the local cache, or a
///               name of known_models(). With weights their own list of tensors counts.
/// @throws Error{io, format, unsupported, invalid_argument}
MemoryPlan plan(const std::string& model, const PlanOptions& options = {});

/// The same for every format that the model can have, with and without double quantization; options.format and
/// double_quant do not count.
std::vector<MemoryPlan> plan_formats(const std::string& model, const PlanOptions& options = {});

/// Names of models whose shapes are built in: "llama-2-7b", "bert-base", ...
std::vector<std::string> known_models();

}  // namespace nibble
