// Sentence vectors: token vectors of an encoder, pooled.
#include "nibble/embed.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "core/error.h"
#include "io/model_files.h"
#include "io/sentence_modules.h"
#include "tasks/loaded_model.h"
#include "tasks/sequence_batches.h"
#include "text/unicode.h"

namespace nibble {

using Vector = std::vector<float>;

/// rows: [tokens, width] of one sentence.
using PoolFn = void (*)(const float* rows, int64_t tokens, Vector& out);

/// How token vectors become one.
struct SentenceSettings {
  PoolFn pool;
  bool normalize = true;
  bool lowercase = false;
  int64_t max_length = 0;  // tokens, special ones included
};

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxSettingsBytes = 1u << 20;

void divide_sum(const float* rows, int64_t tokens, double by, Vector& out) {
  const auto width = static_cast<int64_t>(out.size());
  for (int64_t c = 0; c < width; ++c) {
    double sum = 0;
    for (int64_t t = 0; t < tokens; ++t) sum += rows[t * width + c];
    out[static_cast<size_t>(c)] = static_cast<float>(sum / by);
  }
}

void pool_mean(const float* rows, int64_t tokens, Vector& out) {
  divide_sum(rows, tokens, static_cast<double>(tokens), out);
}

void pool_mean_sqrt(const float* rows, int64_t tokens, Vector& out) {
  divide_sum(rows, tokens, std::sqrt(static_cast<double>(tokens)), out);
}

void pool_first(const float* rows, int64_t, Vector& out) { std::copy(rows, rows + out.size(), out.begin()); }

void pool_max(const float* rows, int64_t tokens, Vector& out) {
  pool_first(rows, tokens, out);
  for (int64_t t = 1; t < tokens; ++t) {
    const float* row = rows + t * static_cast<int64_t>(out.size());
    for (size_t c = 0; c < out.size(); ++c) out[c] = std::max(out[c], row[c]);
  }
}

struct PoolingMode {
  std::string_view name;  // "pooling_mode" of the Pooling module's config.json
  std::string_view flag;  // in files before sentence-transformers 5.4
  PoolFn pool;            // null: not supported
};
constexpr PoolingMode kPoolingModes[] = {{"mean", "pooling_mode_mean_tokens", pool_mean},
                                         {"cls", "pooling_mode_cls_token", pool_first},
                                         {"max", "pooling_mode_max_tokens", pool_max},
                                         {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", pool_mean_sqrt},
                                         {"weightedmean", "pooling_mode_weightedmean_tokens", nullptr},
                                         {"lasttoken", "pooling_mode_lasttoken", nullptr}};

PoolFn find_pooling(const Json& json, const std::string& where) {
  const std::string& name = json.as_string(where);
  for (const PoolingMode& mode : kPoolingModes) {
    if (mode.name == name && mode.pool) return mode.pool;
  }
  fail(ErrorCode::unsupported, where + ": '" + printable(name, 100) + "' is not supported");
}

std::vector<PoolFn> flagged_poolings(const Json& config, const std::string& file) {
  std::vector<PoolFn> poolings;
  for (const PoolingMode& mode : kPoolingModes) {
    const std::string where = file + ": " + std::string(mode.flag);
    const Json* value = config.find_value(mode.flag);
    if (value == nullptr || !value->as_bool(where)) continue;
    if (mode.pool == nullptr) fail(ErrorCode::unsupported, where + " is not supported");
    poolings.push_back(mode.pool);
  }
  return poolings;
}

/// A name or a list of them.
std::vector<PoolFn> named_poolings(const Json& names, const std::string& where) {
  if (!names.is_array()) return {find_pooling(names, where)};
  std::vector<PoolFn> poolings;
  for (const Json& name : names.as_array(where)) poolings.push_back(find_pooling(name, where));
  return poolings;
}

PoolFn read_pooling(const std::string& file) {
  const Json config = Json::parse_file(file, kMaxSettingsBytes);
  const Json* names = config.find_value("pooling_mode");
  const std::vector<PoolFn> poolings =
      names ? named_poolings(*names, file + ": pooling_mode") : flagged_poolings(config, file);
  if (poolings.empty()) fail(ErrorCode::format, file + ": names no pooling");
  if (poolings.size() > 1) fail(ErrorCode::unsupported, file + ": several poolings at once are not supported");
  return poolings.front();
}

void normalize(Vector& v) {
  double squares = 0;
  for (const float x : v) squares += static_cast<double>(x) * x;
  const double norm = std::max(std::sqrt(squares), 1e-12);  // torch.nn.functional.normalize's floor
  for (float& x : v) x = static_cast<float>(x / norm);
}

void require_in_folder(const SentenceModule& module, const std::string& where) {
  if (module.path.empty()) return;
  fail(ErrorCode::unsupported,
       where + ": the encoder is expected in the folder itself, not in '" + printable(module.path, 100) + "'");
}

void read_modules(const fs::path& folder, SentenceSettings& settings) {
  const std::vector<SentenceModule> modules = read_sentence_modules(folder);
  const std::string file = (folder / "modules.json").string();
  settings.normalize = modules.empty();
  for (const SentenceModule& module : modules) {
    if (module.type.ends_with(".Transformer")) {
      require_in_folder(module, file);
    } else if (module.type.ends_with(".Pooling")) {
      settings.pool = read_pooling((folder / module.path / "config.json").string());
    } else if (module.type.ends_with(".Normalize")) {
      settings.normalize = true;
    } else {
      fail(ErrorCode::unsupported, file + ": module '" + printable(module.type, 100) +
                                       "' is not supported (known: Transformer, Pooling, Normalize)");
    }
  }
}

/// max_seq_length stands before the tokenizer's own limit; since 5.4 sentence-transformers writes only the latter.
void read_limits(const fs::path& folder, const LoadedModel& loaded, SentenceSettings& settings) {
  settings.max_length = longest_text(loaded);
  const fs::path path = folder / "sentence_bert_config.json";
  if (!fs::is_regular_file(path)) return;
  const std::string file = path.string();
  const Json config = Json::parse_file(file, kMaxSettingsBytes);
  if (const Json* length = config.find_value("max_seq_length")) {
    const int64_t tokens = length->as_int(file + ": max_seq_length");
    if (tokens < 1) fail(ErrorCode::format, file + ": max_seq_length: expected at least 1");
    settings.max_length = std::min(loaded.model->info().context_length, tokens);
  }
  if (const Json* lower = config.find_value("do_lower_case"))
    settings.lowercase = lower->as_bool(file + ": do_lower_case");
}

}  // namespace

SentenceTransformer SentenceTransformer::from_pretrained(const std::string& path, const LoadModelOptions& options) {
  std::shared_ptr<LoadedModel> loaded = load_model(path, exact_by_default(options));
  require_encoder(*loaded);
  auto settings = std::make_shared<SentenceSettings>();
  settings->pool = pool_mean;
  const fs::path folder = find_model(path);
  read_modules(folder, *settings);
  read_limits(folder, *loaded, *settings);
  return SentenceTransformer(std::move(loaded), std::move(settings));
}

std::vector<Vector> SentenceTransformer::embed(const std::vector<std::string>& sentences,
                                               const EmbedOptions& options) const {
  const Tokenizer& tokenizer = model_->require_tokenizer();
  std::vector<EncodedText> encoded;
  encoded.reserve(sentences.size());
  for (const std::string& sentence : sentences) {
    const std::string text = settings_->lowercase ? lowercase(to_valid_utf8(sentence)) : sentence;
    encoded.push_back({.ids = tokenizer.encode(text, {.max_length = settings_->max_length})});
  }
  std::vector<Vector> vectors(sentences.size());
  run_sequences(*model_, encoded, options.progress, [&](const SequenceBatch& batch) {
    const float* rows = batch.hidden.f32();
    for (size_t i = 0; i < batch.members.size(); ++i) {
      Vector& out = vectors[batch.members[i]];
      out.resize(static_cast<size_t>(batch.hidden.cols()));
      settings_->pool(rows, batch.lengths[i], out);
      if (settings_->normalize) normalize(out);
      rows += batch.lengths[i] * batch.hidden.cols();
    }
  });
  return vectors;
}

uint64_t SentenceTransformer::weight_bytes() const { return model_->weight_bytes; }
const DeviceMap& SentenceTransformer::device_map() const { return model_->device_map; }

}  // namespace nibble
