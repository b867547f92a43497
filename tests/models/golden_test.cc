// Every family against transformers in float32: logits, hidden states, greedy tokens, and decoding step by step.
#include <gtest/gtest.h>

#include "models/harness.h"

namespace nibble {
namespace {

using namespace nibble::test;

// transformers' own float32 results are within 1e-5 of float64; sums in another order move them as much again.
constexpr double kTolerance = 2e-4;

class FamilyGolden : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::filesystem::path folder = golden_model(GetParam());
    NIBBLE_NEED_SHARED(folder);
    model_ = load(folder.string());
    golden_.emplace(folder / "golden.safetensors");
  }
  std::vector<int32_t> ids(int i) const { return ids_of(golden_->load("input_ids." + std::to_string(i))); }

  std::unique_ptr<Model> model_;
  std::optional<SafetensorsFile> golden_;
};

TEST_P(FamilyGolden, LogitsAndHiddenStates) {
  for (int i = 0; golden_->find("input_ids." + std::to_string(i)); ++i) {
    const std::string n = std::to_string(i);
    Tape tape;
    const Tensor logits = model_->forward({.ids = ids(i)}, nullptr, &tape);
    EXPECT_LE(difference(floats(logits), floats(golden_->load("logits." + n))).relative(), kTolerance)
        << "prompt " << i;
    for (int k = 0; golden_->find("hidden." + n + "." + std::to_string(k)); ++k) {
      const Tensor* hidden = tape.find("hidden." + std::to_string(k));
      ASSERT_NE(hidden, nullptr) << k;
      const Tensor expected = golden_->load("hidden." + n + "." + std::to_string(k));
      EXPECT_LE(difference(floats(*hidden), floats(expected)).relative(), kTolerance)
          << "prompt " << i << " layer " << k;
    }
  }
}

TEST_P(FamilyGolden, GreedyTokensAndStepLogits) {
  for (int i = 0; golden_->find("generated." + std::to_string(i)); ++i) {
    const std::vector<int32_t> expected = ids_of(golden_->load("generated." + std::to_string(i)));
    const Greedy got = greedy(*model_, ids(i), expected.size());
    EXPECT_EQ(got.ids, expected) << "prompt " << i;
    const Tensor steps = golden_->load("step_logits." + std::to_string(i));
    EXPECT_LE(difference(got.logits, floats(steps)).relative(), kTolerance) << "prompt " << i;
  }
}

TEST_P(FamilyGolden, DecodingStepByStepEqualsPrefill) {
  const std::vector<int32_t> prompt = ids(0);
  const std::vector<float> at_once = floats(model_->forward({.ids = prompt}, nullptr, nullptr));
  for (const size_t first : {size_t{1}, prompt.size() / 2}) {
    KvCache cache = model_->new_cache(static_cast<int64_t>(prompt.size()));
    std::vector<float> in_steps = floats(model_->forward({.ids = std::span(prompt).first(first)}, &cache, nullptr));
    for (size_t t = first; t < prompt.size(); ++t) {
      const std::vector<float> row = floats(model_->forward({.ids = std::span(prompt).subspan(t, 1)}, &cache, nullptr));
      in_steps.insert(in_steps.end(), row.begin(), row.end());
    }
    EXPECT_LE(difference(in_steps, at_once).relative(), 2e-5);
  }
}

// A cache in 16 bits rounds keys and values once: relative 2^-11 (f16) or 2^-8 (bf16) each.
TEST_P(FamilyGolden, SixteenBitCachesStayClose) {
  const std::vector<float> exact = greedy(*model_, ids(0), 8).logits;
  EXPECT_LE(difference(greedy(*model_, ids(0), 1, DType::f16).logits,
                       floats(Tensor::from(std::span(exact).first(static_cast<size_t>(model_->info().vocab_size)))))
                .relative(),
            0.01);
  EXPECT_LE(difference(greedy(*model_, ids(0), 1, DType::bf16).logits,
                       floats(Tensor::from(std::span(exact).first(static_cast<size_t>(model_->info().vocab_size)))))
                .relative(),
            0.05);
}

TEST_P(FamilyGolden, ContextAndIdsAreChecked) {
  KvCache cache = model_->new_cache(2);
  const std::vector<int32_t> three = {1, 2, 3};
  expect_error(ErrorCode::invalid_argument, "the cache has room for 2",
               [&] { model_->forward({.ids = three}, &cache, nullptr); });
  const std::vector<int32_t> outside = {1, static_cast<int32_t>(model_->info().vocab_size)};
  expect_error(ErrorCode::invalid_argument, "outside the vocabulary",
               [&] { model_->forward({.ids = outside}, nullptr, nullptr); });
}

INSTANTIATE_TEST_SUITE_P(Families, FamilyGolden,
                         ::testing::Values("llama", "llama-tied", "mistral", "qwen2", "qwen3", "smollm3", "gemma2",
                                           "gemma3", "phi3", "olmo2", "gpt2", "opt", "opt-projected"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace nibble
