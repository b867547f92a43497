// The candidates on the user's own model and text, one at a time beside the original.
#include <algorithm>

#include "core/error.h"
#include "core/limits.h"
#include "nibble/evaluate.h"
#include "quant/format.h"
#include "tasks/recommend_rules.h"
#include "text/text_file.h"

namespace nibble {

void measure_candidates(const std::string& model, const RecommendOptions& options, std::vector<Candidate>& candidates) {
  const std::string text = read_utf8_file(options.measure_text, limits::kMaxJsonBytes);
  const EvaluateOptions evaluation = {
      .context = options.measure_context, .max_tokens = options.measure_tokens, .progress = options.progress};
  const CausalLM original = AutoModelForCausalLM::from_pretrained(model, {.progress = options.progress});
  const auto chunks = evaluation_chunks(original, text, evaluation);
  for (Candidate& candidate : candidates) {
    if (find_format(candidate.plan.format).dense || candidate.plan.total_bytes > options.memory) continue;
    const CausalLM quantized =
        AutoModelForCausalLM::from_pretrained(model, {.format = candidate.plan.format,
                                                      .block = candidate.configuration.block,
                                                      .double_quant = candidate.configuration.double_quant,
                                                      .progress = options.progress});
    const EvaluateReport r = evaluate(quantized, &original, chunks, evaluation);
    const double saved = std::max(1.0, static_cast<double>(r.reference_bytes) - static_cast<double>(r.bytes));
    candidate.measured = MeasuredLoss{.perplexity = r.perplexity,
                                      .reference_perplexity = r.reference_perplexity,
                                      .kl_mean = r.kl_mean,
                                      .top1_agreement = r.top1_agreement,
                                      .tokens_per_second = r.tokens_per_second,
                                      .bytes = r.bytes,
                                      .reference_bytes = r.reference_bytes,
                                      .kl_per_gigabyte_saved = r.kl_mean / (saved / 1e9)};
  }
}

}  // namespace nibble
