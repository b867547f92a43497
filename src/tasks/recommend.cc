// Which configuration, and why: preferences in order, the first that fits.
#include "nibble/recommend.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "core/cgroups.h"
#include "core/error.h"
#include "quant/format.h"
#include "tasks/recommend_rules.h"

namespace nibble {
namespace {

template <class T>
T parse_word(const std::string& name, const char* what, const std::vector<std::pair<std::string, T>>& words) {
  std::string known;
  for (const auto& [word, value] : words) {
    if (word == name) return value;
    known += (known.empty() ? "" : ", ") + word;
  }
  fail(ErrorCode::invalid_argument, std::string(what) + ": found '" + name + "', expected one of " + known);
}

bool is_quantized(const Candidate& c) { return !find_format(c.plan.format).dense; }
bool is_bitsandbytes(const Candidate& c) { return c.plan.format == "int8" || c.plan.format == "nf4"; }

std::optional<double> known_kl(const Candidate& c) {
  if (c.measured) return c.measured->kl_mean;
  return c.expected_kl;
}

/// Candidates whose loss is known to be below the wish, the smallest first, and then the others.
void sort_by_max_kl(std::vector<Candidate>& all, double max_kl) {
  const auto loss_of = [](const Candidate& c) { return known_kl(c).value_or(std::numeric_limits<double>::infinity()); };
  const auto within = [&](const Candidate& c) { return loss_of(c) <= max_kl; };
  std::stable_sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
    if (within(a) != within(b)) return within(a);
    return within(a) ? a.plan.weights_bytes < b.plan.weights_bytes : loss_of(a) < loss_of(b);
  });
}

/// By what was measured: the wish says which figure counts. Candidates without one keep their place behind.
void sort_by_measurement(std::vector<Candidate>& all, AccuracyWish wish) {
  const auto figure = [&](const Candidate& c) {
    if (!c.measured) return 1e300;
    if (wish == AccuracyWish::best) return c.measured->kl_mean;
    return wish == AccuracyWish::smallest ? static_cast<double>(c.plan.weights_bytes)
                                          : c.measured->kl_per_gigabyte_saved;
  };
  // The original loses nothing and saves nothing: with the wish for the best it stays first, else it goes last.
  std::stable_sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) {
    if (wish == AccuracyWish::best && is_quantized(a) != is_quantized(b)) return !is_quantized(a);
    return figure(a) < figure(b);
  });
}

/// The first that fits; else the one that needs least.
size_t choose(const std::vector<Candidate>& all, uint64_t memory) {
  size_t least = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i].plan.total_bytes <= memory) return i;
    if (all[i].plan.total_bytes < all[least].plan.total_bytes) least = i;
  }
  return least;
}

void check(const RecommendOptions& o) {
  if (o.max_kl && !(*o.max_kl >= 0)) {
    fail(ErrorCode::invalid_argument, fmt::format("max_kl: found {}, expected a number of nats >= 0", *o.max_kl));
  }
  if (o.max_kl && o.goal != Goal::inference) {
    fail(ErrorCode::invalid_argument, "max_kl: is about inference; training changes what the model predicts");
  }
  if (!o.measure_text.empty() && o.goal != Goal::inference) {
    fail(ErrorCode::invalid_argument, "measure: only inference can be measured beforehand");
  }
}

std::vector<Candidate> planned(const std::string& model, const Situation& situation) {
  std::vector<Candidate> all = preferences(situation);
  for (Candidate& c : all) {
    c.configuration.memory = situation.options.memory;
    c.plan = plan(model, c.configuration);
    c.configuration.format = c.plan.format;
  }
  // "original" may be one of the formats that follow it.
  for (size_t i = 0; i < all.size(); ++i) {
    std::erase_if(all, [&, at = &all[i]](const Candidate& c) { return &c > at && c.label() == at->label(); });
  }
  return all;
}

}  // namespace

Goal parse_goal(const std::string& name) {
  return parse_word<Goal>(name, "task",
                          {{"inference", Goal::inference}, {"finetune", Goal::finetune}, {"train", Goal::train}});
}

Device parse_device(const std::string& name) {
  return parse_word<Device>(name, "device", {{"server", Device::server}, {"edge", Device::edge}, {"gpu", Device::gpu}});
}

AccuracyWish parse_accuracy_wish(const std::string& name) {
  return parse_word<AccuracyWish>(
      name, "accuracy",
      {{"best", AccuracyWish::best}, {"balanced", AccuracyWish::balanced}, {"smallest", AccuracyWish::smallest}});
}

Recommendation recommend(const std::string& model, const RecommendOptions& wanted) {
  RecommendOptions options = wanted;
  if (options.memory == 0) options.memory = available_memory();
  check(options);
  const MemoryPlan original = plan(model, {});
  if (!find_format(original.format).dense) {
    fail(ErrorCode::unsupported,
         model + ": is quantized already (" + original.format + "); what to choose is asked of the original model");
  }
  const Situation situation = {options, original};
  std::vector<Candidate> all = planned(model, situation);
  if (!options.measure_text.empty()) {
    measure_candidates(model, options, all);
    sort_by_measurement(all, options.accuracy);
  }
  if (options.max_kl) sort_by_max_kl(all, *options.max_kl);

  const size_t chosen = choose(all, options.memory);
  Recommendation r;
  r.model = model;
  r.memory = options.memory;
  r.choice = all[chosen];
  r.fits = r.choice.plan.total_bytes <= options.memory;
  r.reasons = reasons_for(all[chosen], all, situation);
  if (!r.fits && options.goal != Goal::train) {
    r.reasons.insert(r.reasons.end(), r.choice.plan.advice.begin(), r.choice.plan.advice.end());
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (i == chosen) continue;
    all[i].remark = remark_on(all[i], all[chosen], options.memory);
    r.alternatives.push_back(all[i]);
  }
  return r;
}

std::string Candidate::label() const {
  std::string text = plan.format + (configuration.double_quant ? " + double quant" : "");
  if (configuration.task != PlanTask::finetune) return text;
  text = configuration.method == TrainingMethod::full    ? "full training in fp32"
         : configuration.method == TrainingMethod::qlora ? "qlora over " + text
                                                         : "lora over " + text;
  if (configuration.gradient_checkpointing) text += ", checkpointing";
  if (configuration.optimizer == OptimizerKind::adamw8bit) text += ", 8-bit adam";
  return text;
}

std::string Candidate::flags() const {
  std::string text = "--format " + plan.format + (configuration.double_quant ? " --double-quant" : "");
  const bool four_bit = find_format(plan.format).bits_per_weight_double_quant > 0;
  if (four_bit) text += " --compute-dtype " + std::string(dtype_name(compute_dtype));
  if (configuration.task != PlanTask::finetune) return text;
  const bool full = configuration.method == TrainingMethod::full;
  text += full ? " --method full"
               : fmt::format(" --method {} --lora-r {} --target-modules all-linear",
                             configuration.method == TrainingMethod::qlora ? "qlora" : "lora", configuration.lora_r);
  text += configuration.optimizer == OptimizerKind::adamw8bit ? " --optimizer adamw8bit" : " --optimizer adamw";
  return text + (configuration.gradient_checkpointing ? " --gradient-checkpointing" : "");
}

std::string Candidate::cpp_snippet() const {
  if (plan.format == "int8") return "nibble::BitsAndBytesConfig config{.load_in_8bit = true};";
  if (plan.format == "nf4" || plan.format == "int4") {
    return fmt::format(
        "nibble::BitsAndBytesConfig config{{.load_in_4bit = true,\n"
        "                                  .bnb_4bit_compute_dtype = nibble::DType::{},\n"
        "                                  .bnb_4bit_quant_type = \"{}\",\n"
        "                                  .bnb_4bit_use_double_quant = {}}};",
        compute_dtype == DType::bf16 ? "bf16" : "f32", plan.format, configuration.double_quant);
  }
  return fmt::format("nibble::LoadModelOptions options{{.format = \"{}\"}};", plan.format);
}

std::string Candidate::python_snippet() const {
  if (plan.format == "int8") return "BitsAndBytesConfig(load_in_8bit=True)";
  if (is_bitsandbytes(*this)) {
    return fmt::format(
        "BitsAndBytesConfig(load_in_4bit=True,\n"
        "                   bnb_4bit_compute_dtype=torch.{},\n"
        "                   bnb_4bit_quant_type=\"{}\",\n"
        "                   bnb_4bit_use_double_quant={})",
        torch_dtype_name(compute_dtype), plan.format, configuration.double_quant ? "True" : "False");
  }
  if (is_quantized(*this)) return "# " + plan.format + " is a format of nibble alone";
  return fmt::format("dict(dtype=torch.{})", torch_dtype_name(parse_dtype(plan.format)));
}

}  // namespace nibble
