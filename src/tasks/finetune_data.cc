#include "tasks/finetune_data.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <numeric>

#include "core/counter_random.h"
#include "core/error.h"
#include "core/limits.h"
#include "core/progress.h"
#include "ops/cross_entropy.h"
#include "tasks/data_file.h"
#include "tasks/finetune_classified.h"
#include "tasks/finetune_text.h"
#include "text/text_file.h"

namespace nibble {
namespace {

constexpr size_t kPreviewTokens = 200;
constexpr uint64_t kShuffleStream = 0x5348554646;  // apart from other uses of the seed

/// Labels that count; nothing predicts the first.
int64_t trained_in(const TrainingSample& sample) {
  const auto first = sample.labels.begin() + (sample.labels.empty() ? 0 : 1);
  return std::count_if(first, sample.labels.end(), [](int32_t label) { return label != kNoLabel; });
}

/// Takes samples in, cuts them, and counts what is odd about them.
class Collector {
 public:
  Collector(const LoadedModel& model, const DataOptions& options)
      : model_(model), options_(options), end_ids_(model.end_ids()) {
    data_.report.max_length = options.max_length;
    if (model.tokenizer) bos_ = model.tokenizer->special().bos;
    if (model.tokenizer && model.tokenizer->special().eos) end_ids_.push_back(*model.tokenizer->special().eos);
  }

  void add(TrainingSample sample) { take(std::move(sample), !options_.classify && !end_ids_.empty()); }
  /// The same for one that need not end as a text does.
  void add_part(TrainingSample sample) { take(std::move(sample), false); }

  TrainingData finish(const std::string& path) {
    if (data_.samples.empty()) {
      fail(ErrorCode::format,
           path + ": has nothing to train on" +
               (data_.report.dropped
                    ? ": of all " + std::to_string(data_.report.dropped) + " samples no label is left within " +
                          std::to_string(options_.max_length) + " tokens; raise --max-length or look at the prompts"
                    : ""));
    }
    data_.report.preview = preview(data_.samples.front());
    return std::move(data_);
  }

  int64_t& truncated() { return data_.report.truncated; }

 private:
  bool trains_an_end(const TrainingSample& sample) const {
    return std::any_of(sample.labels.begin(), sample.labels.end(), [&](int32_t label) {
      return std::find(end_ids_.begin(), end_ids_.end(), label) != end_ids_.end();
    });
  }

  void take(TrainingSample sample, bool ends) {
    FinetuneData& r = data_.report;
    if (!options_.classify) {
      r.double_bos += bos_ && sample.ids.size() > 1 && sample.ids[0] == *bos_ && sample.ids[1] == *bos_;
      cut(sample);
      if (trained_in(sample) == 0) {
        ++r.dropped;
        return;
      }
      r.missing_eos += ends && !trains_an_end(sample);
    }
    const auto length = static_cast<int64_t>(sample.ids.size());
    ++r.samples;
    r.tokens += length;
    r.longest = std::max(r.longest, length);
    r.trained_tokens += options_.classify ? 1 : trained_in(sample);
    data_.samples.push_back(std::move(sample));
  }

  void cut(TrainingSample& sample) {
    const auto limit = static_cast<size_t>(options_.max_length);
    if (sample.ids.size() <= limit) return;
    ++data_.report.truncated;
    sample.ids.resize(limit);
    sample.labels.resize(limit);
  }

  std::string text_of(std::span<const int32_t> ids) const {
    if (model_.tokenizer) return model_.tokenizer->decode(ids);
    std::string text;
    for (const int32_t id : ids) text += std::to_string(id) + " ";
    return text;
  }

  std::vector<PreviewPiece> preview(const TrainingSample& sample) const {
    std::vector<PreviewPiece> pieces;
    const size_t count = std::min(sample.ids.size(), kPreviewTokens);
    const auto trained = [&](size_t i) { return !options_.classify && sample.labels[i] != kNoLabel; };
    for (size_t begin = 0; begin < count;) {
      size_t end = begin + 1;
      while (end < count && trained(end) == trained(begin)) ++end;
      pieces.push_back({text_of(std::span(sample.ids).subspan(begin, end - begin)), trained(begin)});
      begin = end;
    }
    return pieces;
  }

  const LoadedModel& model_;
  const DataOptions& options_;
  std::vector<int32_t> end_ids_;
  std::optional<int32_t> bos_;
  TrainingData data_;
};

/// One long text in rows of max_length tokens.
void read_plain_text(const LoadedModel& model, const std::string& text, int64_t max_length, Collector& out) {
  const std::vector<int32_t> ids = SampleReader(model).plain(text).ids;
  const auto width = static_cast<size_t>(max_length);
  for (size_t begin = 0; begin < ids.size(); begin += width) {
    const auto from = ids.begin() + static_cast<int64_t>(begin);
    const auto to = ids.begin() + static_cast<int64_t>(std::min(begin + width, ids.size()));
    out.add_part({.ids = {from, to}, .labels = {from, to}});
  }
}

void read_causal(const LoadedModel& model, const std::string& path, const DataOptions& options, Collector& out) {
  const std::string text = read_utf8_file(path, limits::kMaxJsonBytes);
  const std::string extension = std::filesystem::path(path).extension().string();
  if (extension == ".txt") return read_plain_text(model, text, options.max_length, out);
  if (extension != ".jsonl") {
    fail(ErrorCode::unsupported, path + ": a language model is trained on .jsonl or .txt files");
  }
  const SampleReader reader(model);
  for_lines(text, path, [&](std::string_view line, const std::string& where) {
    out.add(reader.read(Json::parse(line, where), where));
  });
}

}  // namespace

std::vector<std::string> FinetuneData::warnings() const {
  std::vector<std::string> list;
  const auto warn = [&](int64_t count, const std::string& what) {
    if (count > 0)
      list.push_back(std::to_string(count) + " of " + std::to_string(samples + dropped) + " samples " + what);
  };
  warn(truncated, "are longer than " + std::to_string(max_length) + " tokens and lose their ends");
  warn(dropped, "have nothing to train on and are left out");
  warn(missing_eos, "train no end of text, so the model does not learn to stop");
  warn(double_bos, "begin with two bos tokens");
  return list;
}

TrainingData read_training_data(const std::shared_ptr<LoadedModel>& model, const std::string& path,
                                const DataOptions& options) {
  Collector collector(*model, options);
  if (options.classify) {
    const auto add = [&](TrainingSample sample) { collector.add(std::move(sample)); };
    collector.truncated() += read_classified(model, path, options.max_length, add);
  } else {
    read_causal(*model, path, options, collector);
  }
  return collector.finish(path);
}

std::vector<std::vector<size_t>> rows_of(const std::vector<TrainingSample>& samples, bool packing, int64_t max_length) {
  std::vector<std::vector<size_t>> rows;
  if (!packing) {
    for (size_t i = 0; i < samples.size(); ++i) rows.push_back({i});
    return rows;
  }
  std::vector<size_t> longest_first(samples.size());
  std::iota(longest_first.begin(), longest_first.end(), size_t{0});
  std::stable_sort(longest_first.begin(), longest_first.end(),
                   [&](size_t a, size_t b) { return samples[a].ids.size() > samples[b].ids.size(); });
  std::multimap<int64_t, size_t> room;  // tokens left -> row
  for (const size_t i : longest_first) {
    const auto length = static_cast<int64_t>(samples[i].ids.size());
    const auto fits = room.lower_bound(length);
    size_t row = rows.size();
    int64_t left = max_length;
    if (fits != room.end()) {
      left = fits->first;
      row = fits->second;
      room.erase(fits);
    } else {
      rows.emplace_back();
    }
    rows[row].push_back(i);
    room.emplace(left - length, row);
  }
  return rows;
}

std::vector<size_t> epoch_order(size_t rows, bool shuffle, uint64_t seed, int64_t epoch) {
  std::vector<size_t> order(rows);
  std::iota(order.begin(), order.end(), size_t{0});
  if (!shuffle) return order;
  const CounterRandom random(seed, kShuffleStream + static_cast<uint64_t>(epoch));
  for (size_t i = rows; i > 1; --i) std::swap(order[i - 1], order[random.bits(i) % i]);  // Fisher and Yates
  return order;
}

LabelledBatch batch_of(const std::vector<TrainingSample>& samples, const std::vector<std::vector<size_t>>& rows,
                       const std::vector<size_t>& chosen) {
  LabelledBatch batch;
  const auto append = [](auto& to, const auto& from) { to.insert(to.end(), from.begin(), from.end()); };
  bool has_types = false;
  for (const size_t row : chosen) {
    for (const size_t i : rows[row]) {
      const TrainingSample& sample = samples[i];
      append(batch.ids, sample.ids);
      append(batch.labels, sample.labels);
      append(batch.targets, sample.targets);
      batch.lengths.push_back(static_cast<int64_t>(sample.ids.size()));
      has_types = has_types || !sample.token_type_ids.empty();
    }
  }
  if (!has_types) return batch;
  for (const size_t row : chosen) {
    for (const size_t i : rows[row]) {
      std::vector<int32_t> types = samples[i].token_type_ids;
      types.resize(samples[i].ids.size());
      append(batch.token_type_ids, types);
    }
  }
  return batch;
}

}  // namespace nibble
