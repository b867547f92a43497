#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/npy.h"
#include "cli/print.h"
#include "core/error.h"

namespace nibble::cli {
namespace {

struct Top {
  int32_t id;
  double logit, logprob;
};

std::vector<Top> likeliest(std::span<const float> row, int64_t count) {
  const float largest = *std::max_element(row.begin(), row.end());
  double sum = 0;
  for (const float x : row) sum += std::exp(static_cast<double>(x) - largest);
  const double log_sum = largest + std::log(sum);
  std::vector<int32_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  const auto n = static_cast<int64_t>(std::min<size_t>(static_cast<size_t>(count), row.size()));
  std::partial_sort(order.begin(), order.begin() + n, order.end(), [&](int32_t a, int32_t b) {
    const float x = row[static_cast<size_t>(a)], y = row[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  });
  std::vector<Top> top;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t id = order[static_cast<size_t>(i)];
    top.push_back({id, row[static_cast<size_t>(id)], row[static_cast<size_t>(id)] - log_sum});
  }
  return top;
}

std::string text_of(const CausalLM& model, int32_t id) {
  return model.has_tokenizer() ? model.decode(std::span(&id, 1)) : std::string();
}

/// What is printed of the positions, in both forms.
struct Printed {
  Json positions = Json::array();
  std::vector<std::vector<std::string>> rows = {{"position", "id", "rank", "next", "text", "logit", "logprob"}};

  void add(const CausalLM& model, int64_t position, int32_t id, const std::vector<Top>& top) {
    Json list = Json::array();
    int rank = 0;
    for (const Top& p : top) {
      const std::string text = text_of(model, p.id);
      list.push_back(Json::object({{"id", int64_t{p.id}}, {"text", text}, {"logit", p.logit}, {"logprob", p.logprob}}));
      rows.push_back({std::to_string(position), std::to_string(id), std::to_string(++rank), std::to_string(p.id),
                      Json(text).dump(), fmt::format("{:.4f}", p.logit), fmt::format("{:.4f}", p.logprob)});
    }
    positions.push_back(Json::object({{"top", list}}));
  }
};

}  // namespace

int cmd_logits(const Arguments& arguments) {
  Common common;
  ModelArgs model_args;
  PromptArgs prompt;
  std::string npy;
  int64_t top = 5;
  Args args("logits", "What a model predicts after each position, to compare with another engine.",
            "  nibble logits smollm2-135m -p \"The capital of France is\" --top 3\n"
            "  nibble logits smollm2-nf4 --ids 504,3575,282 --npy logits.npy --json");
  model_args.declare(args);
  prompt.declare(args);
  args.option("--top", top, "predictions to show per position");
  args.option("--npy", npy, "FILE", "write all logits as float32 [tokens, vocabulary]");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  if (top < 0) fail(ErrorCode::invalid_argument, "--top: expected an integer >= 0");
  const JsonReport json;
  model_args.default_activations = "fp32";  // to be compared with other engines
  const CausalLM model = model_args.load(common);
  const std::vector<int32_t> ids = prompt.token_ids(model);
  const auto vocab = static_cast<size_t>(model.vocab_size());
  std::optional<NpyWriter> file;
  if (!npy.empty()) file.emplace(npy, std::vector{static_cast<int64_t>(ids.size()), model.vocab_size()});
  Printed printed;
  model.logits_in_portions(ids, [&](int64_t first, std::span<const float> logits) {
    if (file) file->append(logits);
    for (size_t i = 0; i * vocab < logits.size(); ++i) {
      const size_t position = static_cast<size_t>(first) + i;
      printed.add(model, first + static_cast<int64_t>(i), ids[position],
                  likeliest(logits.subspan(i * vocab, vocab), top));
    }
  });
  if (file) file->finish();
  if (common.json) {
    json.print(model_args.model, Json::object({{"ids", id_list(ids)}, {"positions", printed.positions}}));
  } else {
    print_table(printed.rows);
  }
  return 0;
}

}  // namespace nibble::cli
