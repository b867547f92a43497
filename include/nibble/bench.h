#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "nibble/model.h"
#include "nibble/progress.h"

namespace nibble {

struct BenchOptions {
  /// What to load the model as: names of formats, with "+dq" behind 4-bit ones for double quantization; "stored" = as
  /// its files have it. The first is the baseline. Empty: fp32, bf16, int8, int8-dynamic, nf4, nf4+dq, fp4, int4, or
  /// "stored" alone for a model that is quantized already.
  std::vector<std::string> formats = {};
  std::vector<std::string> against = {};  ///< further models as they are stored: folders, GGUF files
  std::string activations = "auto";       ///< see LoadModelOptions
  std::string head = "keep";              ///< see LoadModelOptions
  std::string text = {};                  ///< to measure perplexity and KL on; empty = speed and memory only
  int64_t max_tokens = 4096;              ///< of the text
  int64_t context = 512;                  ///< ids per chunk of the text
  int64_t prompt_tokens = 256, gen_tokens = 64;
  int64_t repeat = 3;  ///< rounds; in each of them every row is measured once
  ProgressFn progress = {};
};

/// The median of the rounds and the range they span.
struct Spread {
  double median = 0, low = 0, high = 0;
};

struct BenchRow {
  std::string name = {};  ///< of the format, or the path of a model that was given to compare with
  uint64_t bytes = 0;     ///< of the weights in memory
  Spread load_seconds = {}, prefill_tokens_per_second = {}, decode_tokens_per_second = {};
  uint64_t peak_rss_bytes = 0;                  ///< while loading and running; 0 where the system does not tell
  std::optional<double> joules_per_token = {};  ///< of the whole processor package, decoding; where it can be read
  std::optional<double> perplexity = {};
  std::optional<double> kl_mean = {}, top1_agreement = {};  ///< against the model as it is stored
};

struct BenchReport {
  std::string isa = {};
  int threads = 0;
  double load_average = 0;  ///< of the machine when the measurement began
  std::vector<BenchRow> rows = {};
};

/// Size, speed, memory and accuracy of a causal language model in several formats. Rows take turns, so that a drift of
/// the machine hits all of them alike; only one is in memory at a time (two while KL is measured).
/// @throws Error{invalid_argument} for formats, counts or a text that cannot be used, else as from_pretrained().
BenchReport bench(const std::string& model, const BenchOptions& options = {});

}  // namespace nibble
