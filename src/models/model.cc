#include "models/model.h"

#include <numeric>

#include "core/error.h"

namespace nibble {

std::vector<int64_t> sequence_lengths(const Batch& batch) {
  const auto tokens = static_cast<int64_t>(batch.ids.size());
  if (batch.lengths.empty()) return {tokens};
  if (std::accumulate(batch.lengths.begin(), batch.lengths.end(), int64_t{0}) != tokens) {
    fail(ErrorCode::invalid_argument, "the lengths of the sequences do not add up to the number of ids");
  }
  return batch.lengths;
}

}  // namespace nibble
