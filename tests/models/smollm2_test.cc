// A real model, when it is there: SmolLM2-135M-Instruct as a Hugging Face folder and as the GGUF it was made from
// ($NIBBLE_REAL_MODELS, by default ~/.cache/nibble-real), against transformers in float32.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include "models/harness.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

constexpr const char* kExpected = "real/expected/smollm2-135m.json";
constexpr const char* kGguf = "smollm2-135m-gguf/SmolLM2-135M-Instruct.Q4_1.gguf";

fs::path real_models() {
  if (const char* folder = std::getenv("NIBBLE_REAL_MODELS")) return folder;
  const char* home = std::getenv("HOME");
  return fs::path(home ? home : ".") / ".cache/nibble-real";
}

std::vector<int32_t> ids_at(const Json& object, const std::string& key) {
  std::vector<int32_t> ids;
  for (const Json& id : object.find(key)->as_array(key)) ids.push_back(static_cast<int32_t>(id.as_int(key)));
  return ids;
}

/// The values of a version-1 .npy file of float32.
std::vector<float> read_npy(const fs::path& path) {
  const std::string bytes = read_file(path);
  const size_t header = 10 + static_cast<unsigned char>(bytes.at(8)) + 256u * static_cast<unsigned char>(bytes.at(9));
  std::vector<float> values((bytes.size() - header) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + header, values.size() * sizeof(float));
  return values;
}

class SmolLM2 : public ::testing::Test {
 protected:
  void SetUp() override {
    NIBBLE_NEED_SHARED(kExpected);
    if (!fs::exists(real_models() / "smollm2-135m")) GTEST_SKIP() << "no real model in " << real_models();
    expected_ = shared_json(kExpected);
  }
  Json expected_;
};

TEST_F(SmolLM2, LogitsOfTheLastPositions) {
  const auto model = load((real_models() / "smollm2-135m").string());
  const std::vector<float> golden = read_npy(shared_folder() / "real/expected/smollm2-135m.logits_last4.npy");
  const auto& prompts = expected_.find("logits")->as_array("logits");
  const size_t each = 4 * static_cast<size_t>(model->info().vocab_size);
  ASSERT_EQ(golden.size(), prompts.size() * each);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const Tensor all = model->forward({.ids = ids_at(prompts[i], "ids")}, nullptr, nullptr);
    const std::vector<float> last = floats(all.slice_rows(all.rows() - 4, all.rows()));
    const std::vector<float> want(golden.begin() + static_cast<int64_t>(i * each),
                                  golden.begin() + static_cast<int64_t>((i + 1) * each));
    EXPECT_LE(difference(last, want).relative(), 2e-4) << "prompt " << i;
  }
}

TEST_F(SmolLM2, GreedyTokens) {
  const auto model = load((real_models() / "smollm2-135m").string());
  for (const Json& entry : expected_.find("greedy")->as_array("greedy")) {
    const std::vector<int32_t> want = ids_at(entry, "ids");
    EXPECT_EQ(greedy(*model, ids_at(entry, "prompt_ids"), want.size()).ids, want) << text_at(entry, "prompt");
  }
}

// q and k rows lie in another order in GGUF files; left so, the model still talks but its logits are far off. The
// folder holds the same values rounded to float16, which moves logits by up to 0.03.
TEST_F(SmolLM2, TheGgufGivesTheSameLogits) {
  if (!fs::exists(real_models() / kGguf)) GTEST_SKIP() << "no " << kGguf << " in " << real_models();
  const auto from_gguf = load((real_models() / kGguf).string());
  const auto from_folder = load((real_models() / "smollm2-135m").string());
  const std::vector<int32_t> ids = ids_at(expected_.find("logits")->as_array("logits")[0], "ids");
  const std::vector<float> a = floats(from_gguf->forward({.ids = ids}, nullptr, nullptr));
  const std::vector<float> b = floats(from_folder->forward({.ids = ids}, nullptr, nullptr));
  EXPECT_LE(difference(a, b).largest, 0.04);
}

// The residual stream reaches 25,000: sums of squares beyond float16's range.
TEST_F(SmolLM2, MassiveActivationsStayFinite) {
  const auto model = load((real_models() / "smollm2-135m").string());
  Tape tape;
  model->hidden({.ids = ids_at(expected_.find("greedy")->as_array("greedy")[1], "prompt_ids")}, nullptr, &tape);
  float largest = 0;
  for (int64_t layer = 0; layer <= model->info().layers; ++layer) {
    const Tensor* hidden = tape.find("hidden." + std::to_string(layer));
    ASSERT_NE(hidden, nullptr) << layer;
    for (const float x : floats(*hidden)) largest = std::max(largest, std::abs(x));
  }
  EXPECT_GT(largest, 5000.0f);
  EXPECT_LT(largest, 65504.0f);
}

}  // namespace
}  // namespace nibble
