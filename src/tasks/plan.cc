// Memory by part, whether it fits, and what to change.
#include "nibble/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "tasks/loaded_model.h"
#include "tasks/plan_memory.h"
#include "tasks/plan_model.h"
#include "tasks/plan_text.h"

namespace nibble {
namespace {

constexpr int64_t kDefaultContext = 4096;
constexpr int64_t kMaxBatch = 65'536, kMaxRank = 65'536;

template <class T>
struct Word {
  std::string name;
  T value;
};

template <class T, size_t N>
T parse_word(const std::string& name, const char* what, const Word<T> (&words)[N]) {
  std::string known;
  for (const Word<T>& word : words) {
    if (word.name == name) return word.value;
    known += (known.empty() ? "" : ", ") + word.name;
  }
  fail(ErrorCode::invalid_argument, std::string(what) + ": found '" + name + "', expected one of " + known);
}

int64_t checked(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return value;
  fail(ErrorCode::invalid_argument,
       fmt::format("{}: found {}, expected an integer from {} to {}", name, value, low, high));
}

int64_t context_of(const PlanModel& model, const PlanOptions& options) {
  return options.context ? options.context : std::min(model.info.context_length, kDefaultContext);
}

void check_options(const PlanModel& model, const PlanOptions& o) {
  checked("context", o.context, 0, model.info.context_length);
  checked("batch", o.batch, 1, kMaxBatch);
  checked("prompt_tokens", o.prompt_tokens, 0, context_of(model, o));
  checked("lora_r", o.lora_r, 1, kMaxRank);
  if (o.kv_dtype) check_kv_dtype(*o.kv_dtype);
  if (head_format(o.head) == nullptr) return;
  if (o.task == PlanTask::finetune) {
    fail(ErrorCode::invalid_argument, "head: is for inference; training takes the output head as it is stored");
  }
  if (!model.info.predicts_text()) {
    fail(ErrorCode::invalid_argument, model.name + (model.info.is_encoder ? ": is an encoder" : ": is a classifier") +
                                          "; head is for language models");
  }
}

/// The format that the Linear layers of the base get: what fine-tuning needs where nothing is said.
PlanOptions with_base_format(const PlanModel& model, PlanOptions options) {
  if (options.task != PlanTask::finetune) return options;
  const bool quantized = options.format.empty() ? model.is_quantized() : !find_format(options.format).dense;
  if (options.method == TrainingMethod::qlora && options.format.empty() && !quantized) options.format = "nf4";
  if (options.method == TrainingMethod::full) {
    if (quantized)
      fail(ErrorCode::invalid_argument, "method full trains the weights themselves: they cannot be quantized");
    options.format = "fp32";
  }
  return options;
}

int64_t block_of(const std::string& format, int64_t wanted) {
  const Format* row = find_format_or_null(format);
  return wanted || row == nullptr ? wanted : row->block;
}

/// One model with what is computed once: its shapes.
class Planner {
 public:
  explicit Planner(PlanModel model) : model_(std::move(model)), widths_(find_widths(model_)) {}

  const PlanModel& model() const { return model_; }

  /// Without fits, advice and the largest sizes.
  MemoryPlan compute(const PlanOptions& wanted) const {
    check_options(model_, wanted);
    const PlanOptions options = with_base_format(model_, wanted);
    MemoryPlan p;
    p.model = model_.name;
    p.architecture = model_.info.architecture;
    p.format = options.format.empty() ? model_.format() : options.format;
    p.double_quant = options.double_quant;
    p.block = block_of(p.format, options.block);
    p.head = options.head;
    p.task = options.task;
    p.parameters = model_.parameters();
    p.context_length = model_.info.context_length;
    p.context = context_of(model_, options);
    p.batch = options.batch;
    const WeightPlan weights = plan_weights(model_, options);
    p.weights = weights.bytes;
    p.weights_bytes = weights.bytes.total();
    p.file_bytes = weights.file_bytes;
    p.resident_bytes = weights.resident_bytes;
    const TrainableBytes trainable = plan_trainable(model_, options);
    p.trainable_parameters = trainable.parameters;
    p.lora_bytes = options.method == TrainingMethod::full ? 0 : trainable.weights;
    p.gradient_bytes = trainable.gradients;
    p.optimizer_bytes = trainable.optimizer;
    add_activations(model_, widths_, options, p);
    return p;
  }

  /// The total at another context and batch.
  uint64_t total(const MemoryPlan& plan, const PlanOptions& options, int64_t context, int64_t batch) const {
    MemoryPlan other = plan;
    other.context = context;
    other.batch = batch;
    add_activations(model_, widths_, options, other);
    return other.total_bytes;
  }

 private:
  PlanModel model_;
  Widths widths_;
};

/// The largest n in [1, limit] for which bytes(n), which grows with n, is at most `memory`; 0 = none.
template <class Bytes>
int64_t largest_that_fits(int64_t limit, uint64_t memory, Bytes&& bytes) {
  int64_t low = 0, high = limit;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (bytes(middle) <= memory) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

/// Something that takes less memory, and what else it means.
struct Change {
  const char* flags;
  const char* meaning;
  bool (*applies)(const MemoryPlan&, const PlanOptions&);
  void (*apply)(PlanOptions&);
};

bool is_4bit(const MemoryPlan& p) {
  const Format* format = find_format_or_null(p.format);
  return format && format->bits_per_weight_double_quant > 0;
}
bool is_read_only(const MemoryPlan& p) {  // a block format of GGUF, small already
  const Format* format = find_format_or_null(p.format);
  return format == nullptr || (format->encode == nullptr && !format->dense);
}
bool is_dense_format(const MemoryPlan& p) {
  const Format* format = find_format_or_null(p.format);
  return format && format->dense;
}
bool trains(const PlanOptions& o) { return o.task == PlanTask::finetune; }

constexpr Change kChanges[] = {
    {"--kv-dtype fp16", "half the cache",
     [](const MemoryPlan& p, const PlanOptions&) { return p.kv_cache_bytes > 0 && p.kv_dtype == DType::f32; },
     [](PlanOptions& o) { o.kv_dtype = DType::f16; }},
    {"--kv-dtype int8", "the cache in 8 bits: measure the loss with 'nibble evaluate'",
     [](const MemoryPlan& p, const PlanOptions&) { return p.kv_cache_bytes > 0 && p.kv_dtype != DType::i8; },
     [](PlanOptions& o) { o.kv_dtype = DType::i8; }},
    {"--prompt-tokens 512", "prompts of at most 512 tokens",
     [](const MemoryPlan& p, const PlanOptions& o) {
       return p.kv_cache_bytes > 0 && o.prompt_tokens == 0 && p.context > 512;
     },
     [](PlanOptions& o) { o.prompt_tokens = 512; }},
    {"--gradient-checkpointing", "about a third more time",
     [](const MemoryPlan&, const PlanOptions& o) { return trains(o) && !o.gradient_checkpointing; },
     [](PlanOptions& o) { o.gradient_checkpointing = true; }},
    {"--optimizer adamw8bit", "8-bit optimizer state",
     [](const MemoryPlan&, const PlanOptions& o) { return trains(o) && o.optimizer == OptimizerKind::adamw; },
     [](PlanOptions& o) { o.optimizer = OptimizerKind::adamw8bit; }},
    {"--method qlora", "adapters instead of all weights",
     [](const MemoryPlan&, const PlanOptions& o) { return trains(o) && o.method == TrainingMethod::full; },
     [](PlanOptions& o) { o.method = TrainingMethod::qlora, o.format.clear(); }},
    {"--format int8", "half of 16 bits",
     [](const MemoryPlan& p, const PlanOptions& o) { return !trains(o) && is_dense_format(p); },
     [](PlanOptions& o) { o.format = "int8", o.double_quant = false; }},
    {"--format nf4", "4 bits: measure the loss with 'nibble evaluate'",
     [](const MemoryPlan& p, const PlanOptions& o) {
       return !is_4bit(p) && !is_read_only(p) && !(trains(o) && o.method == TrainingMethod::full);
     },
     [](PlanOptions& o) { o.format = "nf4"; }},
    {"--double-quant", "the scales in 8 bits too",
     [](const MemoryPlan& p, const PlanOptions& o) { return is_4bit(p) && !o.double_quant && !o.format.empty(); },
     [](PlanOptions& o) { o.double_quant = true; }},
    {"--batch 1", "one sequence at a time", [](const MemoryPlan& p, const PlanOptions&) { return p.batch > 1; },
     [](PlanOptions& o) { o.batch = 1; }},
};

int64_t longest_context(const Planner& planner, const PlanOptions& options, const MemoryPlan& p) {
  return largest_that_fits(p.context_length, *options.memory,
                           [&](int64_t n) { return planner.total(p, options, n, p.batch); });
}

/// The longest context as it is or, when nothing fits, with all changes.
std::string advise_context(const Planner& planner, const PlanOptions& changed, const MemoryPlan& p) {
  if (p.largest_context_that_fits > 0) {
    return fmt::format("--context {}: the longest that fits as it is", p.largest_context_that_fits);
  }
  const int64_t longest =
      longest_context(planner, with_base_format(planner.model(), changed), planner.compute(changed));
  if (longest > 0) return fmt::format("with that, the longest context that fits is {}", longest);
  return "nothing here makes it fit: take a smaller model or more memory";
}

void advise_changes(const Planner& planner, const PlanOptions& options, MemoryPlan& p) {
  const uint64_t memory = *options.memory;
  PlanOptions together = options;
  for (const Change& change : kChanges) {
    if (!change.applies(p, options)) continue;
    PlanOptions changed = options;
    change.apply(changed);
    if (!planner.model().is_gguf && planner.model().is_quantized() && changed.format != options.format) continue;
    const uint64_t total = planner.compute(changed).total_bytes;
    if (total >= p.total_bytes) continue;
    change.apply(together);
    p.advice.push_back(fmt::format(
        "{} ({}): {} instead of {}, {}", change.flags, change.meaning, size_text(total), size_text(p.total_bytes),
        total <= *options.memory ? "fits" : "still " + size_text(total - *options.memory) + " too much"));
  }
  if (p.advice.size() > 1) {
    const uint64_t least = planner.compute(together).total_bytes;
    const char* verdict = least <= memory ? "fits" : "which does not fit";
    p.advice.push_back(fmt::format("all of these together: {}, {}", size_text(least), verdict));
  }
  p.advice.push_back(advise_context(planner, together, p));
}

void advise_room(uint64_t memory, MemoryPlan& p) {
  p.advice.push_back(fmt::format("{} stay free", size_text(memory - p.total_bytes)));
  if (p.largest_context_that_fits > p.context) {
    p.advice.push_back(fmt::format("there is room for a context of {}{}", p.largest_context_that_fits,
                                   p.largest_context_that_fits == p.context_length ? ", all this model has" : ""));
  }
  if (p.largest_batch_that_fits > p.batch && p.largest_batch_that_fits < kMaxBatch) {
    p.advice.push_back(fmt::format("there is room for {} sequences at a time", p.largest_batch_that_fits));
  }
}

void add_fit(const Planner& planner, const PlanOptions& wanted, MemoryPlan& p) {
  if (!wanted.memory) return;
  const PlanOptions options = with_base_format(planner.model(), wanted);
  const uint64_t memory = *options.memory;
  p.fits = p.total_bytes <= memory;
  p.largest_context_that_fits =
      largest_that_fits(p.context_length, memory, [&](int64_t n) { return planner.total(p, options, n, p.batch); });
  p.largest_batch_that_fits =
      largest_that_fits(kMaxBatch, memory, [&](int64_t n) { return planner.total(p, options, p.context, n); });
  if (p.fits) {
    advise_room(memory, p);
  } else {
    advise_changes(planner, wanted, p);
  }
}

MemoryPlan plan_with(const Planner& planner, const PlanOptions& options) {
  MemoryPlan p = planner.compute(options);
  add_fit(planner, options, p);
  return p;
}

}  // namespace

PlanTask parse_plan_task(const std::string& name) {
  return parse_word(name, "task", {Word<PlanTask>{"inference", PlanTask::inference}, {"finetune", PlanTask::finetune}});
}

TrainingMethod parse_finetune_method(const std::string& name) {
  return parse_word(name, "method",
                    {Word<TrainingMethod>{"lora", TrainingMethod::lora},
                     {"qlora", TrainingMethod::qlora},
                     {"full", TrainingMethod::full}});
}

OptimizerKind parse_optimizer(const std::string& name) {
  return parse_word(name, "optimizer",
                    {Word<OptimizerKind>{"adamw", OptimizerKind::adamw},
                     {"adamw8bit", OptimizerKind::adamw8bit},
                     {"sgd", OptimizerKind::sgd}});
}

MemoryPlan plan(const std::string& model, const PlanOptions& options) {
  return plan_with(Planner(open_plan_model(model)), options);
}

std::vector<MemoryPlan> plan_formats(const std::string& model, const PlanOptions& options) {
  const Planner planner(open_plan_model(model));
  PlanOptions o = options;
  std::vector<MemoryPlan> rows;
  if (planner.model().is_quantized()) {  // as it is; a GGUF file can become something else as well
    o.format.clear();
    o.double_quant = false;
    rows.push_back(plan_with(planner, o));
    if (!planner.model().is_gguf) return rows;
  }
  for (const std::string& name : writable_format_names()) {
    const Format& format = find_format(name);
    if (o.method == TrainingMethod::full && o.task == PlanTask::finetune && name != "fp32") continue;
    if (o.block != 0 && !format.block_choice) continue;
    o.format = name;
    for (const bool double_quant : {false, true}) {
      if (double_quant && format.bits_per_weight_double_quant == 0) continue;
      o.double_quant = double_quant;
      rows.push_back(plan_with(planner, o));
    }
  }
  return rows;
}

}  // namespace nibble
