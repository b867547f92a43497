#pragma once
// Choosing the next id from logits.
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "nibble/generate.h"

namespace nibble {

class Sampler {
 public:
  /// @throws Error{invalid_argument} naming the option that is out of range.
  explicit Sampler(const GenerateOptions& options);

  /// The next id. `seen`: prompt and generated ids, for the repeat penalty. Changes the logits.
  /// @throws Error{format} when a logit is NaN.
  int32_t next(std::span<float> logits, std::span<const int32_t> seen);

 private:
  struct Candidate {
    int32_t id;
    float logit;
  };

  void penalize(std::span<float> logits, std::span<const int32_t> seen);
  void keep_likeliest(std::span<const float> logits);

  const GenerateOptions& options_;
  std::mt19937_64 random_;
  std::vector<Candidate> candidates_;
  std::vector<bool> penalized_;
};

}  // namespace nibble
