// The table of preferences. It begins with the usual decision tree (training from scratch in full precision; small
// models fine-tuned in 16 bits, large ones as adapters over nf4; int8 on a server, nf4 on a small device) and leaves it
// where arithmetic or measurements say otherwise; reasons_for() says where and why.
#include "tasks/recommend_rules.h"

#include <algorithm>
#include <map>

namespace nibble {
namespace {

constexpr int64_t kLargeModel = 3'000'000'000;  // parameters; the usual advice speaks of < 3 B and of 7 B and more

// KL in nats against the original, SmolLM2-135M on WikiText-2: docs/accuracy.md.
struct FormatLoss {
  std::string_view format;
  bool double_quant;
  double kl;
};
constexpr FormatLoss kLosses[] = {{"int8", false, 0.0157},
                                  {"int8-dynamic", false, 0.0142},
                                  {"nf4", false, 0.2260},
                                  {"nf4", true, 0.2265},
                                  {"int4", true, 0.3001}};

std::optional<double> expected_kl(const PlanOptions& c) {
  for (const FormatLoss& row : kLosses) {
    if (row.format == c.format && row.double_quant == c.double_quant) return row.kl;
  }
  return std::nullopt;
}

/// A configuration as a word of the table below. The model as it is: format "".
struct Choice {
  std::string_view word;
  PlanOptions configuration;
};

const std::vector<Choice>& choices() {
  constexpr PlanTask kTrain = PlanTask::finetune;
  static const std::vector<Choice> table = {
      {"original", {}},
      {"int8", {.format = "int8"}},
      {"int8-dynamic", {.format = "int8-dynamic"}},
      {"nf4", {.format = "nf4"}},
      {"nf4-dq", {.format = "nf4", .double_quant = true}},
      {"int4-dq", {.format = "int4", .double_quant = true}},
      {"lora", {.task = kTrain, .method = TrainingMethod::lora}},
      {"lora-ckpt", {.task = kTrain, .method = TrainingMethod::lora, .gradient_checkpointing = true}},
      {"qlora", {.format = "nf4", .task = kTrain, .method = TrainingMethod::qlora}},
      {"qlora-ckpt",
       {.format = "nf4", .task = kTrain, .method = TrainingMethod::qlora, .gradient_checkpointing = true}},
      {"qlora-small",
       {.format = "nf4",
        .double_quant = true,
        .task = kTrain,
        .method = TrainingMethod::qlora,
        .optimizer = OptimizerKind::adamw8bit,
        .gradient_checkpointing = true}},
      {"full", {.task = kTrain, .method = TrainingMethod::full}},
      {"full-ckpt", {.task = kTrain, .method = TrainingMethod::full, .gradient_checkpointing = true}},
      {"full-ckpt-8bit",
       {.task = kTrain,
        .method = TrainingMethod::full,
        .optimizer = OptimizerKind::adamw8bit,
        .gradient_checkpointing = true}},
  };
  return table;
}

enum class Size { any, small, large };

/// The first row that matches counts.
struct Rule {
  Goal goal;
  std::optional<Device> device;
  std::optional<AccuracyWish> accuracy;
  Size size;
  std::vector<std::string_view> words;
};

const std::vector<Rule>& rules() {
  using A = AccuracyWish;
  static const std::vector<Rule> table = {
      {Goal::inference, {}, A::best, Size::any, {"original", "int8", "int8-dynamic", "nf4", "nf4-dq"}},
      {Goal::inference, {}, A::smallest, Size::any, {"nf4-dq", "nf4", "int4-dq"}},
      {Goal::inference, Device::edge, A::balanced, Size::any, {"nf4-dq", "nf4", "int8", "int4-dq"}},
      {Goal::inference, Device::gpu, A::balanced, Size::any, {"int8", "nf4-dq", "nf4", "original"}},
      {Goal::inference, Device::server, A::balanced, Size::any, {"int8", "int8-dynamic", "nf4-dq", "nf4", "original"}},
      {Goal::finetune, {}, A::smallest, Size::any, {"qlora-small", "qlora-ckpt", "qlora", "lora-ckpt"}},
      {Goal::finetune,
       {},
       A::best,
       Size::any,
       {"lora", "lora-ckpt", "qlora", "qlora-ckpt", "qlora-small", "full-ckpt"}},
      {Goal::finetune, {}, {}, Size::small, {"lora", "lora-ckpt", "qlora", "qlora-ckpt", "qlora-small", "full-ckpt"}},
      {Goal::finetune, {}, {}, Size::large, {"qlora", "qlora-ckpt", "qlora-small", "lora-ckpt", "full-ckpt"}},
      {Goal::train, {}, {}, Size::any, {"full", "full-ckpt", "full-ckpt-8bit"}},
  };
  return table;
}

bool matches(const Rule& rule, const RecommendOptions& o, Size size) {
  return rule.goal == o.goal && (!rule.device || *rule.device == o.device) &&
         (!rule.accuracy || *rule.accuracy == o.accuracy) && (rule.size == Size::any || rule.size == size);
}

Candidate make_candidate(std::string_view word, const RecommendOptions& o) {
  Candidate c;
  for (const Choice& choice : choices()) {
    if (choice.word == word) c.configuration = choice.configuration;
  }
  PlanOptions& p = c.configuration;
  p.context = o.context;
  p.batch = o.batch;
  p.prompt_tokens = o.prompt_tokens;
  p.lora_r = o.lora_r;
  // On a GPU products run in 16 bits, and bf16 has the range of fp32. On a CPU nothing is gained by rounding to it.
  c.compute_dtype = o.device == Device::gpu ? DType::bf16 : DType::f32;
  if (p.task == PlanTask::inference) c.expected_kl = p.format.empty() ? std::optional(0.0) : expected_kl(p);
  return c;
}

}  // namespace

std::vector<Candidate> preferences(const Situation& situation) {
  const RecommendOptions& o = situation.options;
  const Size size = situation.original.parameters < kLargeModel ? Size::small : Size::large;
  std::vector<Candidate> out;
  for (const Rule& rule : rules()) {
    if (!matches(rule, o, size)) continue;
    for (const std::string_view word : rule.words) out.push_back(make_candidate(word, o));
    break;
  }
  return out;
}

}  // namespace nibble
