// Rotary frequencies against transformers (rope_golden.inc), and the rotation itself.
#include "ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "models/decoder.h"

namespace nibble {
namespace {

struct Golden {
  const char* name;
  const char* parameters;
  int64_t length;
  double attention_factor;
  std::vector<double> frequencies;
};

const std::vector<Golden>& goldens() {
  static const std::vector<Golden> rows = {
#include "rope_golden.inc"
  };
  return rows;
}

RopeConfig config_of(const Golden& golden) {
  Json json = Json::parse(R"({"vocab_size": 8, "hidden_size": 64, "intermediate_size": 6, "num_hidden_layers": 1,
    "num_attention_heads": 4, "max_position_embeddings": 64})",
                          "config.json");
  json.set("rope_parameters", Json::parse(golden.parameters, golden.name));
  const ConfigReader config(json, golden.name);
  return read_rope(config, read_decoder_shape(config));
}

// transformers computes in float32: a few units in the last place of each frequency.
TEST(RopeGolden, FrequenciesAndAttentionFactorAreThoseOfTransformers) {
  for (const Golden& golden : goldens()) {
    const int64_t position = golden.length - 1;
    const RopeTable table = rope_table(config_of(golden), position, 1);
    for (size_t i = 0; i < golden.frequencies.size(); ++i) {
      const double angle = static_cast<double>(position) * golden.frequencies[i];
      EXPECT_NEAR(table.cos.f32()[i], std::cos(angle) * golden.attention_factor, 2e-5) << golden.name << " " << i;
      EXPECT_NEAR(table.sin.f32()[i], std::sin(angle) * golden.attention_factor, 2e-5) << golden.name << " " << i;
    }
  }
}

// At a position where every component has turned by a measurable angle, a wrong scaling cannot hide.
TEST(RopeGolden, FrequenciesFarOut) {
  for (const Golden& golden : goldens()) {
    if (golden.length > 1) continue;  // dynamic scaling depends on the position
    const RopeTable table = rope_table(config_of(golden), 1000, 1);
    for (size_t i = 0; i < golden.frequencies.size(); ++i) {
      const double angle = 1000.0 * golden.frequencies[i];
      EXPECT_NEAR(table.cos.f32()[i], std::cos(angle) * golden.attention_factor, 2e-4) << golden.name << " " << i;
      EXPECT_NEAR(table.sin.f32()[i], std::sin(angle) * golden.attention_factor, 2e-4) << golden.name << " " << i;
    }
  }
}

// Dynamic scaling depends on the position: what continues a sequence is rotated as it would be token by token.
TEST(Rope, TokensThatContinueASequenceAreRotatedOneByOne) {
  for (const RopeScaling scaling : {RopeScaling::none, RopeScaling::dynamic}) {
    const RopeConfig config = {
        .head_dim = 8, .theta = 100.0, .scaling = scaling, .factor = 2.0, .original_context = 10};
    const RopeTable together = rope_table(config, 8, 6);
    for (int64_t t = 0; t < 6; ++t) {
      const RopeTable alone = rope_table(config, 8 + t, 1);
      for (int64_t i = 0; i < 4; ++i) EXPECT_EQ(together.cos.f32()[4 * t + i], alone.cos.f32()[i]) << t << " " << i;
    }
  }
}

TEST(Rope, RotatesTheTwoHalvesOfEveryHead) {
  const RopeTable table = rope_table({.head_dim = 4, .theta = 100.0}, 3, 1);
  Tensor x = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}, {1, 8});
  x = apply_rope(std::move(x), 4, table, nullptr);
  for (int h = 0; h < 2; ++h) {
    for (int i = 0; i < 2; ++i) {
      const double angle = 3.0 * std::pow(100.0, -i / 2.0), a = 1 + h * 4 + i, b = a + 2;
      EXPECT_NEAR(x.f32()[h * 4 + i], a * std::cos(angle) - b * std::sin(angle), 1e-5);
      EXPECT_NEAR(x.f32()[h * 4 + i + 2], b * std::cos(angle) + a * std::sin(angle), 1e-5);
    }
  }
}

}  // namespace
}  // namespace nibble
