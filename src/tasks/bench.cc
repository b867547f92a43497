// The benchmark table of a model: every format on this machine, taking turns.
#include "nibble/bench.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "core/error.h"
#include "core/parallel.h"
#include "nibble/evaluate.h"
#include "nibble/inspect.h"
#include "nibble/system.h"
#include "tasks/loaded_model.h"
#include "tasks/meters.h"

namespace nibble {
namespace {

constexpr std::string_view kStored = "stored", kDoubleQuant = "+dq";
constexpr int64_t kWarmUpPrompt = 16, kWarmUpTokens = 4;

/// How a row's model is loaded, and what the rounds measured.
struct Entry {
  BenchRow row = {};
  std::string path = {};
  LoadModelOptions load = {};
  std::vector<double> load_seconds = {}, prefill = {}, decode = {}, joules = {};
};

std::vector<std::string> formats_of(const std::string& model, const BenchOptions& options) {
  if (!options.formats.empty()) return options.formats;
  if (inspect(model).quantization != "none") return {std::string(kStored)};
  return {"fp32", "bf16", "int8", "int8-dynamic", "nf4", "nf4+dq", "fp4", "int4"};
}

Entry entry_for(const std::string& model, const std::string& format, const BenchOptions& options) {
  Entry entry = {.row = {.name = format}, .path = model};
  entry.load.activations = options.activations;
  entry.load.head = options.head;
  if (format == kStored) return entry;
  const bool double_quant = format.ends_with(kDoubleQuant);
  entry.load.double_quant = double_quant;
  entry.load.format = double_quant ? format.substr(0, format.size() - kDoubleQuant.size()) : format;
  return entry;
}

std::vector<Entry> entries_for(const std::string& model, const BenchOptions& options) {
  std::vector<Entry> entries;
  for (const std::string& format : formats_of(model, options)) entries.push_back(entry_for(model, format, options));
  for (const std::string& other : options.against) {
    entries.push_back(entry_for(other, std::string(kStored), options));
    entries.back().row.name = other;
  }
  return entries;
}

/// Ids that are spread over the vocabulary, the same for every row.
std::vector<int32_t> some_ids(int64_t count, int64_t vocab_size) {
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) ids[static_cast<size_t>(i)] = static_cast<int32_t>(i * 7919 % vocab_size);
  return ids;
}

void measure(Entry& entry, const BenchOptions& options) {
  reset_peak_rss();
  const auto start = std::chrono::steady_clock::now();
  const CausalLM model = AutoModelForCausalLM::from_pretrained(entry.path, entry.load);
  entry.load_seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  entry.row.bytes = model.weight_bytes();
  const int64_t room = model.context_length();
  if (options.prompt_tokens > room || options.gen_tokens > room - options.prompt_tokens) {
    fail(ErrorCode::invalid_argument, "prompt_tokens and gen_tokens: found " + std::to_string(options.prompt_tokens) +
                                          " and " + std::to_string(options.gen_tokens) + ", expected at most " +
                                          std::to_string(room) + " together, the model's context");
  }
  const std::vector<int32_t> ids = some_ids(options.prompt_tokens, model.vocab_size());
  const auto warm_up = std::span(ids).first(static_cast<size_t>(std::min(kWarmUpPrompt, options.prompt_tokens)));
  model.generate(warm_up, {.max_tokens = kWarmUpTokens, .ignore_eos = true});
  const std::optional<double> before = energy_joules();
  const Generation g = model.generate(ids, {.max_tokens = options.gen_tokens, .ignore_eos = true});
  const std::optional<double> after = energy_joules();
  entry.prefill.push_back(g.prefill_tokens_per_second);
  entry.decode.push_back(g.decode_tokens_per_second);
  // The prefill's share of the energy is taken to be its share of the time.
  if (before && after && *after > *before) {
    const double share = g.decode_seconds / std::max(g.prefill_seconds + g.decode_seconds, 1e-9);
    entry.joules.push_back((*after - *before) * share / static_cast<double>(options.gen_tokens));
  }
  entry.row.peak_rss_bytes = std::max(entry.row.peak_rss_bytes, peak_rss_since_reset());
}

Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {.median = (values[(n - 1) / 2] + values[n / 2]) / 2, .low = values.front(), .high = values.back()};
}

void evaluate_rows(const std::string& original, std::vector<Entry>& entries, const BenchOptions& options,
                   const std::function<void()>& step) {
  const CausalLM reference = AutoModelForCausalLM::from_pretrained(original, {.activations = options.activations});
  const EvaluateOptions how = {.context = options.context, .max_tokens = options.max_tokens};
  for (Entry& entry : entries) {
    const CausalLM model = AutoModelForCausalLM::from_pretrained(entry.path, entry.load);
    const bool comparable = model.vocab_size() == reference.vocab_size();
    const EvaluateReport report =
        evaluate(model, comparable ? &reference : nullptr, evaluation_chunks(model, options.text, how), how);
    entry.row.perplexity = report.perplexity;
    if (comparable) entry.row.kl_mean = report.kl_mean, entry.row.top1_agreement = report.top1_agreement;
    step();
  }
}

void check(const BenchOptions& options) {
  const auto positive = [](const char* name, int64_t value) {
    if (value >= 1) return;
    fail(ErrorCode::invalid_argument, std::string(name) + ": found " + std::to_string(value) + ", expected at least 1");
  };
  positive("prompt_tokens", options.prompt_tokens);
  positive("repeat", options.repeat);
  if (options.gen_tokens < 2) {
    fail(ErrorCode::invalid_argument, "gen_tokens: found " + std::to_string(options.gen_tokens) +
                                          ", expected at least 2: the first comes out of the prompt's pass");
  }
}

}  // namespace

BenchReport bench(const std::string& model, const BenchOptions& options) {
  check(options);
  BenchReport report = {.isa = system_info().isa, .threads = thread_count(), .load_average = load_average()};
  std::vector<Entry> entries = entries_for(model, options);
  const auto rounds = static_cast<int64_t>(entries.size()) * options.repeat;
  int64_t done = 0;
  const int64_t total = rounds + (options.text.empty() ? 0 : static_cast<int64_t>(entries.size()));
  const auto step = [&] {
    if (options.progress) options.progress({.unit = "measurements", .done = ++done, .total = total});
  };
  for (int64_t i = 0; i < options.repeat; ++i) {
    for (Entry& entry : entries) {
      measure(entry, options);
      step();
    }
  }
  if (!options.text.empty()) evaluate_rows(model, entries, options, step);
  for (Entry& entry : entries) {
    entry.row.load_seconds = spread_of(entry.load_seconds);
    entry.row.prefill_tokens_per_second = spread_of(entry.prefill);
    entry.row.decode_tokens_per_second = spread_of(entry.decode);
    if (!entry.joules.empty()) entry.row.joules_per_token = spread_of(entry.joules).median;
    report.rows.push_back(std::move(entry.row));
  }
  return report;
}

}  // namespace nibble
