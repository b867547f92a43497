// Why a configuration was chosen: sentences with the plan's numbers, from a table of what may be worth saying.
#include <fmt/format.h>

#include <algorithm>

#include "quant/format.h"
#include "tasks/plan_text.h"
#include "tasks/recommend_rules.h"

namespace nibble {
namespace {

struct Context {
  const Candidate& choice;
  const std::vector<Candidate>& all;
  const Situation& situation;

  bool is(std::string_view format) const { return choice.plan.format == format; }
  bool is_4bit() const { return find_format(choice.plan.format).bits_per_weight_double_quant > 0; }
  bool trains() const { return choice.configuration.task == PlanTask::finetune; }
  TrainingMethod method() const { return choice.configuration.method; }
  Goal goal() const { return situation.options.goal; }
  Device device() const { return situation.options.device; }
  uint64_t memory() const { return situation.options.memory; }
};

/// What double quantization saves of a 4-bit format: 24 of the 32 bits per block, less the second scales.
uint64_t double_quant_saving(const Context& c) {
  const WeightBytes& w = c.choice.plan.weights;
  return c.choice.plan.double_quant ? 3 * w.scales - w.double_quant : w.scales / 4 * 3;
}

/// "" when there is nothing to say.
using Say = std::string (*)(const Context&);

std::string memory_sentence(const Context& c) {
  const MemoryPlan& p = c.choice.plan;
  return fmt::format("{} needs {}, there are {}: weights {}, {} {}, activations {}", c.choice.label(),
                     size_text(p.total_bytes), size_text(c.memory()), size_text(p.resident_bytes),
                     c.trains() ? "adapters, gradients and optimizer" : "KV cache",
                     size_text(c.trains() ? p.lora_bytes + p.gradient_bytes + p.optimizer_bytes : p.kv_cache_bytes),
                     size_text(p.activation_bytes));
}

std::string passed_over(const Context& c) {
  std::string text;
  for (const Candidate& other : c.all) {
    if (&other == &c.choice) break;
    if (other.plan.total_bytes <= c.memory()) continue;
    text += (text.empty() ? "" : ", ") + fmt::format("{} ({})", other.label(), size_text(other.plan.total_bytes));
  }
  return text.empty() ? "" : "preferred, but too large: " + text;
}

std::string loss(const Context& c) {
  if (c.trains()) return "";
  if (c.choice.measured) {
    const MeasuredLoss& m = *c.choice.measured;
    return fmt::format(
        "measured on your text: KL {:.4f} nats, perplexity {:.3f} against {:.3f}, same likeliest token "
        "in {:.1f} %, {:.2f} nats per GB of weights saved",
        m.kl_mean, m.perplexity, m.reference_perplexity, 100 * m.top1_agreement, m.kl_per_gigabyte_saved);
  }
  if (!c.choice.expected_kl || *c.choice.expected_kl == 0) return "";
  return fmt::format(
      "{} lost {} nats of KL on SmolLM2-135M (docs/accuracy.md); larger models lose less, so measure: "
      "--measure --text FILE",
      c.choice.label(), *c.choice.expected_kl);
}

std::string as_it_is(const Context& c) {
  if (c.trains() || c.is_4bit() || !find_format(c.choice.plan.format).dense) return "";
  std::string smaller;
  for (const Candidate& other : c.all) {
    if (other.plan.format != "int8" || other.plan.total_bytes >= c.choice.plan.total_bytes) continue;
    smaller = fmt::format("; int8 would save {}", size_text(c.choice.plan.total_bytes - other.plan.total_bytes));
  }
  return fmt::format("{} is what the model is stored in: nothing is lost{}", c.choice.plan.format, smaller);
}

std::string int8_scales(const Context& c) {
  if (!c.is("int8") || c.trains()) return "";
  return fmt::format(
      "no double quantization with 8 bits, though it is often listed: int8 has one scale per row, {} of "
      "{}, and nothing that could be quantized again",
      size_text(c.choice.plan.weights.scales), size_text(c.choice.plan.weights_bytes));
}

std::string int8_or_4bit(const Context& c) {
  if (!c.is("int8") || c.trains()) return "";
  return "int8 before nf4 where it fits: 14 times less KL (0.0157 against 0.2265 nats on SmolLM2-135M) for less than "
         "twice the bytes";
}

std::string nf4_or_int4(const Context& c) {
  if (!c.is("nf4") || c.trains()) return "";
  return "nf4, not int4, also on the smallest device: the files have the same size to the byte, and int4 had a third "
         "more KL (0.300 against 0.227 nats on SmolLM2-135M)";
}

std::string double_quant_for_use(const Context& c) {
  if (!c.is_4bit() || c.trains() || !c.choice.plan.double_quant) return "";
  return fmt::format(
      "double quantization takes {} off the file and cost nothing that could be measured (KL 0.2265 "
      "against 0.2260)",
      size_text(double_quant_saving(c)));
}

/// Memory that double quantization saves beside the file: the difference to the candidate with the other setting.
std::string memory_saving(const Context& c) {
  for (const Candidate& other : c.all) {
    if (other.plan.format != c.choice.plan.format || other.plan.double_quant == c.choice.plan.double_quant) continue;
    const uint64_t a = other.plan.resident_bytes, b = c.choice.plan.resident_bytes;
    const uint64_t saved = c.choice.plan.double_quant ? a - std::min(a, b) : b - std::min(a, b);
    return saved == 0 ? "nothing in memory, where nibble holds the scales decoded" : size_text(saved) + " in memory";
  }
  return "less in memory";
}

std::string double_quant_for_training(const Context& c) {
  if (!c.trains() || c.method() != TrainingMethod::qlora) return "";
  const std::string saving = fmt::format("{} of the file and {}", size_text(double_quant_saving(c)), memory_saving(c));
  if (c.choice.plan.double_quant) {
    return fmt::format(
        "double quantization although it is often advised against for training: it saves {}, moved KL by "
        "0.0005 nats, and QLoRA's own results were reached with it",
        saving);
  }
  return fmt::format("no double quantization, as usually advised for training: it would save {}", saving);
}

std::string gpu(const Context& c) {
  if (c.device() != Device::gpu) return "";
  return "the figures are those of nibble on a CPU, with activations in fp32; a GPU library that computes in 16 bits "
         "needs half of them";
}

std::string compute_dtype(const Context& c) {
  if (!c.is_4bit()) return "";
  if (c.choice.compute_dtype == DType::bf16) {
    return "compute dtype bf16, never fp16: fp16 ends at 65504 and large activations overflow";
  }
  return "compute dtype fp32: nibble multiplies 4-bit weights with int16 activations with a scale per 64 of them, "
         "finer than bf16, which would only round more; fp16 can overflow besides. bf16 is right where 16-bit units do "
         "the work (--device gpu)";
}

std::string above_the_limit(const Context& c) {
  const auto& limit = c.situation.options.max_kl;
  const auto kl = c.choice.measured ? std::optional(c.choice.measured->kl_mean) : c.choice.expected_kl;
  if (!limit || !kl || *kl <= *limit) return "";
  return fmt::format("nothing that fits stays below {:.4g} nats; this one is expected to lose {:.4g}", *limit, *kl);
}

std::string mixed_levels(const Context& c) {
  if (!c.is_4bit() && !c.is("int8")) return "";
  const WeightBytes& w = c.choice.plan.weights;
  return fmt::format(
      "embedding and head stay as they are, {} of {}: mixing levels is right here, since every token "
      "passes through them",
      size_text(w.embeddings + w.head), size_text(c.choice.plan.weights_bytes));
}

std::string small_or_large(const Context& c) {
  if (c.goal() != Goal::finetune) return "";
  const double billions = static_cast<double>(c.choice.plan.parameters) / 1e9;
  if (c.method() == TrainingMethod::lora) {
    return fmt::format(
        "{:.2f} B parameters, and 16-bit weights fit: adapters learn best over a base that lost nothing. "
        "int8 would save memory but not help training: it is decoded again for every step",
        billions);
  }
  std::string full;
  for (const Candidate& other : c.all) {
    if (other.configuration.method != TrainingMethod::full) continue;
    full = ". Training all weights would need " + size_text(other.plan.total_bytes);
  }
  return fmt::format("{:.2f} B parameters: adapters over nf4{}", billions, full);
}

std::string adapters(const Context& c) {
  if (c.goal() != Goal::finetune) return "";
  return fmt::format(
      "adapters of rank {} on all linear layers, {:.1f} M parameters ({:.2f} %): on q and v alone they do "
      "not reach 16-bit fine-tuning (QLoRA, arXiv 2305.14314)",
      c.choice.configuration.lora_r, static_cast<double>(c.choice.plan.trainable_parameters) / 1e6,
      100.0 * static_cast<double>(c.choice.plan.trainable_parameters) / static_cast<double>(c.choice.plan.parameters));
}

std::string from_scratch(const Context& c) {
  if (c.goal() != Goal::train) return "";
  return fmt::format(
      "training from scratch needs full precision: a step of about 1e-4 of a weight is lost below it. "
      "Weights, gradients and two moments are {} for {:.2f} B parameters before the first activation",
      size_text(c.choice.plan.resident_bytes + c.choice.plan.gradient_bytes + c.choice.plan.optimizer_bytes),
      static_cast<double>(c.choice.plan.parameters) / 1e9);
}

constexpr Say kSentences[] = {memory_sentence,
                              above_the_limit,
                              passed_over,
                              small_or_large,
                              from_scratch,
                              as_it_is,
                              int8_or_4bit,
                              loss,
                              int8_scales,
                              nf4_or_int4,
                              double_quant_for_use,
                              adapters,
                              double_quant_for_training,
                              compute_dtype,
                              gpu,
                              mixed_levels};

}  // namespace

std::vector<std::string> reasons_for(const Candidate& choice, const std::vector<Candidate>& all,
                                     const Situation& situation) {
  const Context context = {choice, all, situation};
  std::vector<std::string> out;
  for (const Say say : kSentences) {
    if (std::string sentence = say(context); !sentence.empty()) out.push_back(std::move(sentence));
  }
  return out;
}

std::string remark_on(const Candidate& other, const Candidate& choice, uint64_t memory) {
  const uint64_t a = other.plan.total_bytes, b = choice.plan.total_bytes;
  std::string text = a == b ? "the same memory" : size_text(a > b ? a - b : b - a) + (a > b ? " more" : " less");
  if (a > memory) text += ", does not fit";
  if (other.measured) {
    text += fmt::format(", KL {:.4f} measured, {:.2f} nats per GB saved", other.measured->kl_mean,
                        other.measured->kl_per_gigabyte_saved);
  } else if (other.configuration.task == PlanTask::inference && other.expected_kl.value_or(0) > 0) {
    text += fmt::format(", KL {:.4g} on SmolLM2-135M", *other.expected_kl);
  }
  return text;
}

}  // namespace nibble
