// SST-2 with MiniLM: what rounding a trained classifier to INT4 loses, and what training that knows of the rounding
// wins back. One scale for 4096 weights; with the usual 64 hardly anything is lost. The control trains as long without
// knowing of the rounding.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "nibble/classify.h"
#include "support/real_models.h"
#include "train/harness.h"
#include "train/optimizer.h"
#include "train/qat.h"
#include "train/schedule.h"
#include "train/train_step.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr const char* kModel = "real/models/minilm-sst2-22M";
const QatConfig kInt4 = {.format = "int4", .block = 4096};
constexpr int64_t kSentences = 16;  // of a step
constexpr int64_t kSteps = 100;
constexpr double kRate = 2e-5;

struct Sentence {
  std::vector<int32_t> ids;
  int32_t label;
};

/// In an order that the seed gives; 0 = that of the file.
std::vector<Sentence> read_sentences(const std::string& name, size_t most, unsigned seed) {
  const SequenceClassifier tokenizer =
      AutoModelForSequenceClassification::from_pretrained((shared_folder() / kModel).string());
  const LabelledTexts texts = read_labelled_texts((shared_folder() / "real/data/sst2" / name).string());
  std::vector<size_t> order(texts.inputs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::mt19937 random(seed);
  if (seed != 0) std::shuffle(order.begin(), order.end(), random);
  order.resize(std::min(order.size(), most));
  std::vector<Sentence> out;
  for (const size_t i : order) {
    out.push_back({tokenizer.encode(texts.inputs[i]).ids, texts.labels[i] == "1" ? 1 : 0});
  }
  return out;
}

LabelledBatch batch_of(std::span<const Sentence> sentences) {
  LabelledBatch batch;
  for (const Sentence& s : sentences) {
    batch.ids.insert(batch.ids.end(), s.ids.begin(), s.ids.end());
    batch.lengths.push_back(static_cast<int64_t>(s.ids.size()));
    batch.labels.push_back(s.label);
  }
  return batch;
}

struct Score {
  double accuracy = 0, loss = 0;
};

Score score(const Model& model, const std::vector<Sentence>& dev) {
  int64_t right = 0;
  double loss = 0;
  for (const Sentence& s : dev) {
    const Tensor hidden = model.hidden({.ids = s.ids}, nullptr, nullptr);
    const Tensor logits = model.logits(hidden.slice_rows(0, 1));
    const double margin = (s.label == 1 ? 1 : -1) * (logits.f32()[1] - logits.f32()[0]);
    right += margin > 0;
    loss += std::log1p(std::exp(-margin));
  }
  const auto count = static_cast<double>(dev.size());
  return {.accuracy = static_cast<double>(right) / count, .loss = loss / count};
}

bool in_encoder(std::string_view module) { return module.find("encoder.layer.") != std::string_view::npos; }

void train(Model& model, const std::vector<TrainedParameter>& parameters, const std::vector<Sentence>& sentences) {
  Optimizer optimizer(parameters, {.weight_decay = 0.01});
  const Schedule schedule = {.warmup = kSteps / 10, .steps = kSteps};
  Tape tape = tape_for(parameters);
  for (int64_t step = 0; step < kSteps; ++step) {
    const auto batch = std::span(sentences).subspan(static_cast<size_t>(step * kSentences), kSentences);
    train_step(model, {batch_of(batch)}, tape, optimizer,
               {.rate = kRate * schedule_factor(schedule, step), .max_norm = 1});
  }
}

Score after_rounding(Model& model, const std::vector<Sentence>& dev) {
  prepare_qat(model, kInt4, in_encoder);
  convert_qat(model, {});
  return score(model, dev);
}

TEST(QatSst2, RecoversAtLeastHalfOfWhatInt4Loses) {
  NIBBLE_NEED_SHARED(kModel);
  NIBBLE_NEED_SHARED("real/data/sst2/train.tsv");
  const std::string folder = (shared_folder() / kModel).string();
  const std::vector<Sentence> dev = read_sentences("dev.tsv", SIZE_MAX, 0);
  const std::vector<Sentence> data = read_sentences("train.tsv", kSteps * kSentences, 1);
  const std::unique_ptr<Model> plain = load(folder), aware = load(folder);
  train(*plain, train_parameters(*plain, in_encoder), data);
  const Score fp32 = score(*plain, dev), rounded = after_rounding(*plain, dev);

  const auto parameters = train_parameters(*aware, in_encoder);
  prepare_qat(*aware, kInt4, in_encoder);
  train(*aware, parameters, data);
  convert_qat(*aware, {});
  const Score recovered = score(*aware, dev);
  for (const auto& [name, s] : {std::pair{"fp32", fp32}, {"int4", rounded}, {"quantization-aware", recovered}}) {
    std::printf("%s: accuracy %.4f, loss %.4f\n", name, s.accuracy, s.loss);
  }
  EXPECT_LT(rounded.accuracy, fp32.accuracy);
  EXPECT_GE(recovered.accuracy - rounded.accuracy, 0.5 * (fp32.accuracy - rounded.accuracy));
}

}  // namespace
}  // namespace nibble
