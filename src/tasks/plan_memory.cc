// The figures follow what the program does: models/blocks.cc and bert.cc for the intermediate results of a layer,
// ops/attention.cc for cache and scores, all f32. docs/memory.md derives them and says which are measured.
#include "tasks/plan_memory.h"

#include <algorithm>

#include "core/checked.h"
#include "core/error.h"
#include "core/parallel.h"
#include "models/skip.h"
#include "ops/attention.h"
#include "train/gradients.h"

namespace nibble {
namespace {

constexpr uint64_t kFloat = sizeof(float);
constexpr uint64_t kCopiedInput = 4;          // bytes per value: products of quantized weights round their input
constexpr int64_t kEncoderTokens = 512;       // that encoders run together
constexpr uint64_t kProgram = 7u << 20;       // measured
constexpr uint64_t kGgufPerEntry = 370;       // what reading its vocabulary takes besides: 290 to 450 at 49,152 entries
constexpr uint64_t kTokenizerPerEntry = 320;  // measured: SmolLM2 309, MiniLM 318 bytes per entry of the vocabulary
constexpr int64_t kAdam8bitBlock = 256;       // values per scale of the 8-bit optimizer state
constexpr int64_t kAdam8bitSmallest = 4096;   // smaller tensors keep a state in 32 bits
constexpr int64_t kShortestLength = 512, kLongestLength = 32768;

uint64_t bytes_of(int64_t values, uint64_t each = kFloat) { return static_cast<uint64_t>(values) * each; }

uint64_t kv_cache_bytes(const ModelInfo& info, int64_t capacity, DType dtype) {
  return info.predicts_text() ? KvCache::bytes(info.layers, info.kv_heads, info.head_dim, capacity, dtype) : 0;
}

uint64_t attention_scratch(const ModelInfo& info, int64_t tokens, int64_t span) {
  if (info.is_encoder) return static_cast<uint64_t>(thread_count()) * bytes_of(tokens * tokens);
  return attention_bytes({info.heads, info.kv_heads, info.head_dim}, tokens, span);
}

/// Of a forward pass over `tokens` ids whose last sees `span` positions, without the logits.
uint64_t forward_bytes(const PlanModel& model, const Widths& w, const MemoryPlan& plan, int64_t tokens, int64_t span) {
  const Format* format = find_format_or_null(plan.format);
  const int64_t per_token = 4 * w.hidden + std::max(w.attention, w.mlp);
  const uint64_t copy = format && !format->dense ? bytes_of(tokens * w.inner, kCopiedInput) : 0;
  return bytes_of(tokens * per_token) + copy + attention_scratch(model.info, tokens, span);
}

/// Of a step, beside the gradients of all parameters: `gradients` bytes for those of the model, of which `table` for
/// the embeddings or the output head.
uint64_t training_bytes(const Widths& w, int64_t tokens, bool checkpointing, uint64_t gradients, uint64_t table) {
  const int64_t kept = w.layers * (checkpointing ? w.hidden : w.kept);
  const uint64_t at_work = bytes_of(tokens * (checkpointing ? 2 * w.kept : w.kept));  // a layer, and its gradients
  // The logits, which become their own gradients, are gone before the layers go backward; from then on what these keep
  // goes as their parameters' gradients come.
  const uint64_t logits = bytes_of(std::min(tokens, positions_at_once(w.vocab)) * w.vocab);
  const uint64_t first = bytes_of(tokens * kept) + std::max(at_work, logits) + table, last = at_work + gradients;
  return std::max(first, last) - gradients;
}

void add_inference(const PlanModel& model, const Widths& w, const PlanOptions& options, MemoryPlan& plan) {
  const bool whole_texts = !model.info.predicts_text();
  const int64_t prompt = options.prompt_tokens ? std::min(options.prompt_tokens, plan.context) : plan.context;
  const int64_t together = std::max(plan.context, std::min(kEncoderTokens, plan.context * plan.batch));
  const Format* format = find_format_or_null(plan.format);
  plan.kv_dtype = options.kv_dtype.value_or(format && format->dense ? DType::f32 : DType::f16);
  plan.kv_cache_bytes = static_cast<uint64_t>(plan.batch) * kv_cache_bytes(model.info, plan.context, plan.kv_dtype);
  const uint64_t logits = whole_texts ? 0 : bytes_of(w.vocab);
  plan.prefill_bytes = forward_bytes(model, w, plan, whole_texts ? together : prompt, prompt) + logits;
  plan.decode_bytes = whole_texts ? 0
                                  : forward_bytes(model, w, plan, plan.batch, plan.context) +
                                        static_cast<uint64_t>(plan.batch) * logits;
  plan.activation_bytes = std::max(plan.prefill_bytes, plan.decode_bytes);
}

bool is_named(std::string_view module, const std::vector<std::string>& targets) {
  return std::any_of(targets.begin(), targets.end(),
                     [&](const std::string& target) { return module == target || module.ends_with("." + target); });
}

/// Every Linear layer or those that are meant; an embedding when it is named.
bool is_target(const PlanTensor& t, const std::vector<std::string>& targets) {
  const std::string_view module = module_of(t.stored.name);
  if (t.parameter->role == Role::embedding) return is_named(module, targets);
  if (t.parameter->role != Role::linear) return false;
  return targets.empty() || std::find(targets.begin(), targets.end(), "all-linear") != targets.end() ||
         is_named(module, targets);
}

/// m and v of Adam for one tensor.
uint64_t optimizer_bytes(OptimizerKind optimizer, int64_t values) {
  if (optimizer == OptimizerKind::sgd) return 0;
  if (optimizer == OptimizerKind::adamw || values < kAdam8bitSmallest) return 2 * bytes_of(values);
  return 2 * (bytes_of(values, 1) + bytes_of(ceil_div(values, kAdam8bitBlock)));
}

void add_trainable(TrainableBytes& out, OptimizerKind optimizer, int64_t values) {
  out.parameters += values;
  out.weights += bytes_of(values);
  out.gradients += bytes_of(values);
  out.optimizer += optimizer_bytes(optimizer, values);
}

[[noreturn]] void fail_no_target(const PlanModel& model, const std::vector<std::string>& targets) {
  std::vector<std::string> names;
  for (const PlanTensor& t : model.tensors) {
    if (!t.parameter || t.parameter->role != Role::linear) continue;
    const std::string_view module = module_of(t.stored.name);
    names.emplace_back(module.substr(module.rfind('.') + 1));
  }
  const std::string nearest = nearest_name(targets[0], names);
  fail(ErrorCode::invalid_argument, "target_modules: '" + targets[0] + "' matches no Linear layer of " + model.name +
                                        (nearest.empty() ? "" : ", did you mean '" + nearest + "'?"));
}

/// The widths of what goes into norms, of all together. Those of q and k have one for every head.
int64_t norm_inputs(const PlanModel& model) {
  const ModelInfo& info = model.info;
  int64_t sum = 0;
  for (const PlanTensor& t : model.tensors) {
    if (!t.parameter || t.parameter->role != Role::vector || !t.parameter->name.ends_with(".weight")) continue;
    const int64_t width = element_count(t.parameter->shape);
    sum += width == info.head_dim ? (info.heads + info.kv_heads) * width / 2 : width;
  }
  return sum;
}

}  // namespace

Widths find_widths(const PlanModel& model) {
  Widths w = {.vocab = model.info.vocab_size, .layers = std::max<int64_t>(model.info.layers, 1)};
  std::vector<Shape> linears;
  for (const PlanTensor& t : model.tensors) {
    if (!t.parameter) continue;
    if (t.parameter->role == Role::embedding) w.hidden = std::max(w.hidden, t.parameter->shape[1]);
    if (t.parameter->role == Role::linear) linears.push_back(t.parameter->shape);
  }
  for (const Shape& shape : linears) w.inner = std::max(w.inner, shape[1]);
  int64_t gates = 0, fused_gates = 0, projections = 0, projected = 0;  // over all layers
  for (const Shape& shape : linears) {
    if (shape[0] == w.inner) {
      ++gates;
    } else if (shape[0] == 2 * w.inner) {
      ++fused_gates;
    } else if (shape[1] != w.inner) {
      ++projections;
      projected += shape[0];
    }
  }
  projected /= w.layers;
  const bool fused_qkv = projections<4 * w.layers, is_gated = fused_gates> 0 || gates >= 2 * w.layers;
  w.attention = projected + w.hidden + (fused_qkv ? projected - w.hidden : 0);
  w.mlp = (fused_gates > 0 ? 5 : is_gated ? 3 : 1) * w.inner;
  // The inputs of norms; q, k, v and what attention mixes; of the MLP what is activated.
  w.kept = norm_inputs(model) / w.layers + projected + (is_gated ? 2 : 1) * w.inner;
  return w;
}

TrainableBytes plan_trainable(const PlanModel& model, const PlanOptions& options) {
  TrainableBytes out;
  if (options.task != PlanTask::finetune) return out;
  for (const PlanTensor& t : model.tensors) {
    if (!t.parameter) continue;
    if (options.method == TrainingMethod::full) {
      add_trainable(out, options.optimizer, element_count(t.parameter->shape));
    } else if (is_target(t, options.target_modules)) {
      add_trainable(out, options.optimizer, options.lora_r * t.parameter->shape[0]);
      add_trainable(out, options.optimizer, options.lora_r * t.parameter->shape[1]);
    }
  }
  if (out.parameters == 0) fail_no_target(model, options.target_modules);
  return out;
}

void add_activations(const PlanModel& model, const Widths& w, const PlanOptions& options, MemoryPlan& plan) {
  plan.lengths.clear();
  const auto base = [&] {
    return plan.resident_bytes + plan.lora_bytes + plan.gradient_bytes + plan.optimizer_bytes + plan.program_bytes;
  };
  const uint64_t per_entry = kTokenizerPerEntry + (model.is_gguf ? kGgufPerEntry : 0);
  plan.program_bytes = kProgram + per_entry * static_cast<uint64_t>(w.vocab);
  if (plan.task == PlanTask::inference) {
    add_inference(model, w, options, plan);
  } else {
    const bool full = options.method == TrainingMethod::full;
    const uint64_t gradients = full ? plan.gradient_bytes : 0, table = full ? bytes_of(w.vocab * w.hidden) : 0;
    const auto activations = [&](int64_t tokens, bool checkpointing) {
      const uint64_t bytes = training_bytes(w, tokens, checkpointing, gradients, table);
      return bytes + (base() + bytes) / Buffer::kSpareShare;  // freed blocks that are kept
    };
    plan.activation_bytes = activations(plan.context * plan.batch, options.gradient_checkpointing);
    const int64_t longest = std::min(model.info.context_length, kLongestLength);
    for (int64_t length = std::min(kShortestLength, longest); length <= longest; length *= 2) {
      TrainingLength row = {.context = length,
                            .activation_bytes = activations(length * plan.batch, false),
                            .activation_bytes_checkpointed = activations(length * plan.batch, true)};
      row.total_bytes = base() + row.activation_bytes;
      row.total_bytes_checkpointed = base() + row.activation_bytes_checkpointed;
      plan.lengths.push_back(row);
    }
  }
  plan.total_bytes = base() + plan.kv_cache_bytes + plan.activation_bytes;
}

}  // namespace nibble
