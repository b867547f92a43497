#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nibble/plan.h"
#include "nibble/progress.h"

namespace nibble {

enum class Goal { inference, finetune, train };  ///< train: from scratch
enum class Device { server, edge, gpu };         ///< where the result is to run
enum class AccuracyWish { best, balanced, smallest };

/// @throws Error{invalid_argument} naming the known words.
Goal parse_goal(const std::string& name);
Device parse_device(const std::string& name);
AccuracyWish parse_accuracy_wish(const std::string& name);

struct RecommendOptions {
  Goal goal = Goal::inference;
  Device device = Device::server;
  AccuracyWish accuracy = AccuracyWish::balanced;
  std::optional<double> max_kl = {};  ///< instead: the smallest whose KL (nats) stays below
  uint64_t memory = 0;                ///< bytes; 0 = what is free on this machine
  int64_t context = 0, batch = 1, prompt_tokens = 0, lora_r = 16;  ///< as in PlanOptions

  std::string measure_text = {};  ///< a text to measure the candidates on; "" = they are judged by earlier results
  int64_t measure_tokens = 4096;  ///< of it; 0 = all
  int64_t measure_context = 512;
  ProgressFn progress = {};
};

/// What evaluate() found, the original as reference.
struct MeasuredLoss {
  double perplexity = 0, reference_perplexity = 0, kl_mean = 0, top1_agreement = 0, tokens_per_second = 0;
  uint64_t bytes = 0, reference_bytes = 0;
  double kl_per_gigabyte_saved = 0;  ///< of weights
};

struct Candidate {
  PlanOptions configuration = {};    ///< format, method and the rest
  DType compute_dtype = DType::f32;  ///< of 4-bit formats
  MemoryPlan plan = {};
  std::optional<double> expected_kl = {};  ///< of the format on SmolLM2-135M, docs/accuracy.md; larger models lose less
  std::optional<MeasuredLoss> measured = {};
  std::string remark = {};  ///< of an alternative: what it would cost or save

  std::string label() const;           ///< "nf4 + double quant", "qlora over nf4, checkpointing"
  std::string flags() const;           ///< "--format nf4 --double-quant"
  std::string cpp_snippet() const;     ///< a BitsAndBytesConfig where there is one for it
  std::string python_snippet() const;  ///< the same for transformers
};

struct Recommendation {
  std::string model = {};
  uint64_t memory = 0;
  Candidate choice = {};
  bool fits = true;
  std::vector<std::string> reasons = {};
  std::vector<Candidate> alternatives = {};  ///< in the order of preference
};

/// Chooses a configuration: the usual rules of thumb as a table of preferences, of which the first that fits is taken;
/// docs/memory.md has the table. `model` is as in plan(); to measure, it must be a model with weights.
/// @throws Error as plan() and, measuring, as evaluate()
Recommendation recommend(const std::string& model, const RecommendOptions& options = {});

}  // namespace nibble
