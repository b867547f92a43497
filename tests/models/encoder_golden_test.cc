// Encoders against transformers in float32, and against bitsandbytes' quantized checkpoints.
#include <gtest/gtest.h>

#include "models/harness.h"

namespace nibble {
namespace {

using namespace nibble::test;

// transformers' own float32 results are within 3e-6 of float64; sums in another order move them as much again.
constexpr double kTolerance = 2e-4;

/// Padded sequences as the file has them, and without their padding.
struct Padded {
  std::vector<int64_t> lengths;
  std::vector<int32_t> ids, types;
  std::vector<size_t> rows;  // of the padded tensors, by token
};

Padded unpad(const SafetensorsFile& golden) {
  const std::vector<int32_t> ids = ids_of(golden.load("input_ids")), mask = ids_of(golden.load("attention_mask"));
  const std::vector<int32_t> types =
      golden.find("token_type_ids") ? ids_of(golden.load("token_type_ids")) : std::vector<int32_t>(ids.size());
  const auto width = static_cast<size_t>(golden.load("input_ids").shape.at(1));
  Padded out;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (i % width == 0) out.lengths.push_back(0);
    if (mask[i] == 0) continue;
    ++out.lengths.back();
    out.ids.push_back(ids[i]);
    out.types.push_back(types[i]);
    out.rows.push_back(i);
  }
  return out;
}

Batch batch_of(const Padded& p) { return {.ids = p.ids, .lengths = p.lengths, .token_type_ids = p.types}; }

Batch sequence(const Padded& p, size_t index) {
  size_t first = 0;
  for (size_t i = 0; i < index; ++i) first += static_cast<size_t>(p.lengths[i]);
  const auto count = static_cast<size_t>(p.lengths[index]);
  return {.ids = std::span(p.ids).subspan(first, count), .token_type_ids = std::span(p.types).subspan(first, count)};
}

std::vector<float> logits_of(const Model& model, const Batch& batch, Tape* tape = nullptr) {
  const Tensor hidden = model.hidden(batch, nullptr, tape);
  std::vector<float> out;
  int64_t row = 0;
  for (const int64_t length : batch.lengths.empty() ? std::vector<int64_t>{hidden.rows()} : batch.lengths) {
    const std::vector<float> logits = floats(model.logits(hidden.slice_rows(row, row + 1)));
    out.insert(out.end(), logits.begin(), logits.end());
    row += length;
  }
  return out;
}

class EncoderGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(EncoderGolden, LogitsAndHiddenStatesWithoutPadding) {
  const std::string folder = "goldens/models/" + std::string(GetParam());
  NIBBLE_NEED_SHARED(folder);
  const auto model = load((shared_folder() / folder).string());
  const SafetensorsFile golden(shared_folder() / folder / "golden.safetensors");
  const Padded padded = unpad(golden);
  ASSERT_NE(padded.lengths[0], padded.lengths[1]);
  Tape tape;
  const std::vector<float> logits = logits_of(*model, batch_of(padded), &tape);
  EXPECT_LE(difference(logits, floats(golden.load("logits"))).relative(), kTolerance);
  for (int k = 0; k <= model->info().layers; ++k) {
    const std::string name = "hidden." + std::to_string(k);
    const Tensor expected = golden.load(name);
    const int64_t width = expected.shape.at(2);
    std::vector<float> rows;
    for (const size_t row : padded.rows) {
      const float* from = expected.f32() + static_cast<int64_t>(row) * width;
      rows.insert(rows.end(), from, from + width);
    }
    ASSERT_NE(tape.find(name), nullptr) << name;
    EXPECT_LE(difference(floats(*tape.find(name)), rows).relative(), kTolerance) << name;
  }
}

TEST_P(EncoderGolden, OneSequenceGivesTheSameBitsAsInABatch) {
  const std::string folder = "goldens/models/" + std::string(GetParam());
  NIBBLE_NEED_SHARED(folder);
  const auto model = load((shared_folder() / folder).string());
  const SafetensorsFile golden(shared_folder() / folder / "golden.safetensors");
  const Padded padded = unpad(golden);
  std::vector<float> singles;
  for (size_t i = 0; i < padded.lengths.size(); ++i) {
    const std::vector<float> logits = logits_of(*model, sequence(padded, i));
    const std::vector<float> expected = floats(golden.load("logits_single." + std::to_string(i)));
    EXPECT_LE(difference(logits, expected).relative(), kTolerance) << i;
    singles.insert(singles.end(), logits.begin(), logits.end());
  }
  EXPECT_EQ(singles, logits_of(*model, batch_of(padded)));
}

INSTANTIATE_TEST_SUITE_P(Families, EncoderGolden, ::testing::Values("bert", "distilbert", "roberta"),
                         [](const auto& info) { return std::string(info.param); });

// With one sequence at a time, because LLM.int8() takes outlier columns out for the whole call. Weights, codes and
// integer sums are the same; an activation on the edge between two of 127 steps may fall on the other side, which is
// worth 4e-3 of the largest logit.
struct QuantizedCase {
  const char* folder;
  double tolerance;
};

class EncoderBnbGolden : public ::testing::TestWithParam<QuantizedCase> {};

TEST_P(EncoderBnbGolden, LogitsOfEachSequence) {
  const std::string folder = "goldens/bnb/" + std::string(GetParam().folder);
  NIBBLE_NEED_SHARED(folder);
  const auto model = load((shared_folder() / folder).string());
  const SafetensorsFile golden(shared_folder() / folder / "golden.safetensors");
  const Padded padded = unpad(golden);
  for (size_t i = 0; i < padded.lengths.size(); ++i) {
    const std::vector<float> expected = floats(golden.load("logits_single." + std::to_string(i)));
    EXPECT_LE(difference(logits_of(*model, sequence(padded, i)), expected).relative(), GetParam().tolerance) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, EncoderBnbGolden,
                         ::testing::Values(QuantizedCase{"bert-nf4", kTolerance},
                                           QuantizedCase{"bert-nf4-skip", kTolerance},
                                           QuantizedCase{"bert-fp4-dq", kTolerance}, QuantizedCase{"bert-int8", 1e-2}),
                         [](const auto& info) {
                           std::string name = info.param.folder;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace nibble
