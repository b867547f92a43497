// Real encoders against transformers and torch: SST-2 classifiers on the whole dev set, and MiniLM's sentence vectors.
#include <gtest/gtest.h>

#include "nibble/classify.h"
#include "nibble/embed.h"
#include "nibble/quantize_dynamic.h"
#include "support/goldens.h"
#include "support/real_models.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr const char* kMiniLm = "real/models/minilm-sst2-22M";

std::vector<EncodedText> encoded_dev(const std::string& folder) {
  const Json file = shared_json(folder + "/encoded_dev.json");
  std::vector<EncodedText> texts;
  for (const Json& list : file.find("input_ids")->as_array("input_ids")) {
    texts.emplace_back();
    for (const Json& id : list.as_array("ids")) texts.back().ids.push_back(static_cast<int32_t>(id.as_int("id")));
  }
  return texts;
}

SequenceClassifier load(const std::string& folder) {
  return AutoModelForSequenceClassification::from_pretrained((shared_folder() / folder).string());
}

std::vector<float> logits_of(const std::vector<Prediction>& predictions) {
  std::vector<float> logits;
  for (const Prediction& p : predictions) logits.insert(logits.end(), p.logits.begin(), p.logits.end());
  return logits;
}

int64_t flips(const std::vector<float>& a, const std::vector<float>& b) {
  int64_t count = 0;
  for (size_t i = 0; i < a.size(); i += 2) count += (a[i] < a[i + 1]) != (b[i] < b[i + 1]);
  return count;
}

double mean_difference(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(static_cast<double>(a[i]) - b[i]);
  return sum / static_cast<double>(a.size());
}

class Sst2 : public ::testing::TestWithParam<const char*> {};

TEST_P(Sst2, LogitsTokensAndAccuracyAsTransformers) {
  const std::string folder = "real/models/" + std::string(GetParam());
  NIBBLE_NEED_SHARED(folder);
  NIBBLE_NEED_SHARED("real/data/sst2/dev.tsv");
  const SequenceClassifier model = load(folder);
  const LabelledTexts dev = read_labelled_texts((shared_folder() / "real/data/sst2/dev.tsv").string());
  const std::vector<EncodedText> encoded = encoded_dev(folder);
  ASSERT_EQ(dev.inputs.size(), encoded.size());
  std::vector<EncodedText> own;
  for (const TextInput& input : dev.inputs) own.push_back(model.encode(input));
  for (size_t i = 0; i < own.size(); ++i) EXPECT_EQ(own[i].ids, encoded[i].ids) << dev.inputs[i].text;
  const std::vector<Prediction> predictions = model.classify(own);
  EXPECT_LE(difference(logits_of(predictions), read_npy(shared_folder() / folder / "logits_dev_fp32.npy")).largest,
            2e-4);
  const double accuracy = score_labels(predictions, label_ids(model, dev)).accuracy;
  const Json expected = shared_json(folder + "/expected.json");
  EXPECT_NEAR(accuracy, expected.find("dev")->find("fp32")->find("accuracy")->as_double("accuracy"), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Models, Sst2, ::testing::Values("bert-sst2-4.7M", "minilm-sst2-22M"),
                         [](const auto& info) { return info.index == 0 ? "bert" : "minilm"; });

// Our default has a range per token and 255 steps; torch one for all tokens, which costs 16 to 20 flips of 872 here.
TEST(DynamicInt8, OurDefaultHardlyMovesMiniLm) {
  NIBBLE_NEED_SHARED(kMiniLm);
  const std::vector<float> fp32 = read_npy(shared_folder() / kMiniLm / "logits_dev_fp32.npy");
  const SequenceClassifier quantized = quantize_dynamic(load(kMiniLm), {"Linear"}, DType::i8);
  const std::vector<float> logits = logits_of(quantized.classify(encoded_dev(kMiniLm)));
  EXPECT_LE(flips(logits, fp32), 4);
  EXPECT_LE(mean_difference(logits, fp32), 0.03);
}

struct Engine {
  const char* name;  // whose arithmetic it is
  const char* granularity;
  bool reduce_range;
};

// The integers are torch's; floats are summed in another order, so that now and then an activation falls on the other
// side of a step and the rest of that sentence moves. The two x86 engines of torch differ from each other in the same
// way; nibble has to be nearer to one of them than they are to each other.
class TorchEngines : public ::testing::TestWithParam<Engine> {};

TEST_P(TorchEngines, GiveTheSameLogits) {
  NIBBLE_NEED_SHARED(kMiniLm);
  const auto stored = [&](const std::string& engine) {
    return read_npy(shared_folder() / kMiniLm /
                    ("logits_dev_torch_dynamic_int8_" + engine + "_per" + GetParam().granularity + ".npy"));
  };
  const std::vector<float> torch = stored(GetParam().name);
  const SequenceClassifier quantized = quantize_dynamic(
      load(kMiniLm), {"Linear"}, DType::i8,
      {.granularity = GetParam().granularity, .activation_range = "tensor", .reduce_range = GetParam().reduce_range});
  const std::vector<float> logits = logits_of(quantized.classify(encoded_dev(kMiniLm)));
  EXPECT_LE(mean_difference(logits, torch), mean_difference(stored("fbgemm"), stored("onednn")));
  EXPECT_LE(flips(logits, torch), 2);
}

INSTANTIATE_TEST_SUITE_P(MiniLm, TorchEngines,
                         ::testing::Values(Engine{"fbgemm", "channel", true}, Engine{"fbgemm", "tensor", true},
                                           Engine{"qnnpack", "channel", false}),
                         [](const auto& info) { return std::string(info.param.name) + "_" + info.param.granularity; });

TEST(SentenceVectors, AreThoseOfSentenceTransformers) {
  const std::filesystem::path folder = real_models() / "minilm-l6";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "MiniLM is not in " << folder;
  NIBBLE_NEED_SHARED("real/expected/minilm-l6.json");
  const Json expected = shared_json("real/expected/minilm-l6.json");
  std::vector<std::string> sentences;
  for (const Json& s : expected.find("sentences")->as_array("sentences")) sentences.push_back(s.as_string("sentence"));
  std::vector<float> values;
  for (const std::vector<float>& v : SentenceTransformer::from_pretrained(folder.string()).embed(sentences)) {
    values.insert(values.end(), v.begin(), v.end());
  }
  const auto path = shared_folder() / "real/expected/minilm-l6.embeddings_fp32.npy";
  EXPECT_LE(difference(values, read_npy(path)).largest, 1e-6);
}

}  // namespace
}  // namespace nibble
