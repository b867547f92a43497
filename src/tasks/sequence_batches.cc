#include "tasks/sequence_batches.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "core/progress.h"

namespace nibble {
namespace {

// Enough rows to use each weight many times, few enough for the intermediate results to stay in the cache.
constexpr int64_t kBatchTokens = 512;

int64_t length_of(const EncodedText& input) { return static_cast<int64_t>(input.ids.size()); }

void check(const LoadedModel& loaded, const std::vector<EncodedText>& inputs) {
  const ModelInfo& info = loaded.model->info();
  for (size_t i = 0; i < inputs.size(); ++i) {
    const EncodedText& input = inputs[i];
    const std::string where = "text " + std::to_string(i + 1) + ": ";
    if (input.ids.empty()) fail(ErrorCode::invalid_argument, where + "has no tokens");
    if (length_of(input) > info.context_length) {
      fail(ErrorCode::invalid_argument, where + "has " + std::to_string(input.ids.size()) +
                                            " tokens, the model has positions for " +
                                            std::to_string(info.context_length) + "; truncate it");
    }
    if (!input.token_type_ids.empty() && input.token_type_ids.size() != input.ids.size()) {
      fail(ErrorCode::invalid_argument, where + "has " + std::to_string(input.token_type_ids.size()) +
                                            " token type ids for " + std::to_string(input.ids.size()) + " ids");
    }
  }
}

std::vector<size_t> by_length(const std::vector<EncodedText>& inputs) {
  std::vector<size_t> order(inputs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return inputs[a].ids.size() < inputs[b].ids.size(); });
  return order;
}

/// The members from order[begin] on that fit the budget; at least one.
SequenceBatch next_batch(const std::vector<EncodedText>& inputs, std::span<const size_t> order, int64_t budget) {
  SequenceBatch batch;
  int64_t tokens = 0;
  for (const size_t member : order) {
    tokens += length_of(inputs[member]);
    if (tokens > budget && !batch.members.empty()) break;
    batch.members.push_back(member);
    batch.lengths.push_back(length_of(inputs[member]));
  }
  return batch;
}

Tensor run_batch(const Model& model, const std::vector<EncodedText>& inputs, const SequenceBatch& batch) {
  std::vector<int32_t> ids, types;
  for (const size_t member : batch.members) {
    const EncodedText& input = inputs[member];
    ids.insert(ids.end(), input.ids.begin(), input.ids.end());
    types.insert(types.end(), input.token_type_ids.begin(), input.token_type_ids.end());
    types.resize(ids.size());
  }
  return model.hidden({.ids = ids, .lengths = batch.lengths, .token_type_ids = types}, nullptr, nullptr);
}

}  // namespace

void run_sequences(const LoadedModel& loaded, const std::vector<EncodedText>& inputs, const ProgressFn& progress,
                   const std::function<void(const SequenceBatch&)>& use) {
  check(loaded, inputs);
  const std::vector<size_t> order = by_length(inputs);
  const int64_t budget = loaded.mixes_tokens ? 1 : kBatchTokens;
  for (size_t done = 0; done < order.size();) {
    check_interrupt();
    SequenceBatch batch = next_batch(inputs, std::span(order).subspan(done), budget);
    batch.hidden = run_batch(*loaded.model, inputs, batch);
    use(batch);
    done += batch.members.size();
    if (progress) {
      progress({.unit = "texts", .done = static_cast<int64_t>(done), .total = static_cast<int64_t>(order.size())});
    }
  }
}

void require_encoder(const LoadedModel& loaded) {
  const ModelInfo& info = loaded.model->info();
  if (!info.is_encoder) {
    fail(ErrorCode::unsupported, loaded.path + ": " + info.model_type + " is no encoder (bert, distilbert, roberta)");
  }
  require_known_ids(loaded);
}

void require_known_ids(const LoadedModel& loaded) {
  const ModelInfo& info = loaded.model->info();
  if (loaded.tokenizer && loaded.tokenizer->vocab_size() > info.vocab_size) {
    fail(ErrorCode::format, loaded.path + ": the tokenizer has " + std::to_string(loaded.tokenizer->vocab_size()) +
                                " ids, the embedding only " + std::to_string(info.vocab_size) + " rows");
  }
}

int64_t longest_text(const LoadedModel& loaded) {
  const int64_t positions = loaded.model->info().context_length;
  return loaded.tokenizer ? std::min(positions, loaded.tokenizer->max_length().value_or(positions)) : positions;
}

}  // namespace nibble
