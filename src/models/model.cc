#include "models/model.h"

#include <numeric>

#include "core/error.h"

namespace nibble {
namespace {

class EachLinear final : public ParameterVisitor {
 public:
  explicit EachLinear(const std::function<void(Linear&)>& see) : see_(see) {}

  void linear(Linear& layer) override { see_(layer); }
  void embedding(Embedding&) override {}
  void vector(const std::string&, Tensor&) override {}

 private:
  const std::function<void(Linear&)>& see_;
};

}  // namespace

std::vector<int64_t> sequence_lengths(const Batch& batch) {
  const auto tokens = static_cast<int64_t>(batch.ids.size());
  if (batch.lengths.empty()) return {tokens};
  if (std::accumulate(batch.lengths.begin(), batch.lengths.end(), int64_t{0}) != tokens) {
    fail(ErrorCode::invalid_argument, "the lengths of the sequences do not add up to the number of ids");
  }
  return batch.lengths;
}

void for_each_linear(Model& model, const std::function<void(Linear&)>& see) {
  EachLinear visitor(see);
  model.visit(visitor);
}

}  // namespace nibble
