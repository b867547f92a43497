#pragma once
// The parts of recommend: the table of preferences, the reasons, the measurement.
#include <functional>
#include <string>
#include <vector>

#include "nibble/recommend.h"

namespace nibble {

/// What a rule is chosen by.
struct Situation {
  const RecommendOptions& options;
  const MemoryPlan& original;  // the model as it is
};

/// Configurations in the order of preference.
std::vector<Candidate> preferences(const Situation& situation);

/// Plain sentences with numbers. `all`: every candidate, planned.
std::vector<std::string> reasons_for(const Candidate& choice, const std::vector<Candidate>& all,
                                     const Situation& situation);

/// What an alternative would cost or save against the choice.
std::string remark_on(const Candidate& other, const Candidate& choice, uint64_t memory);

/// Evaluates quantized candidates of a causal language model against the original, in place.
void measure_candidates(const std::string& model, const RecommendOptions& options, std::vector<Candidate>& candidates);

}  // namespace nibble
