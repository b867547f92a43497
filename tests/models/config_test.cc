// What a decoder's configuration may say, and what it may not.
#include <gtest/gtest.h>

#include <cmath>

#include "models/decoder.h"
#include "models/registry.h"
#include "ops/rope.h"
#include "support/files.h"

namespace nibble {
namespace {

std::string with(const std::string& extra) {
  return R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 6, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 64)" +
         (extra.empty() ? "" : ", " + extra) + "}";
}

RopeConfig rope_of(const std::string& extra) {
  const Json json = Json::parse(with(extra), "config.json");
  const ConfigReader config(json, "config.json");
  return read_rope(config, read_decoder_shape(config));
}

struct Bad {
  const char* json;
  const char* fragment;
};

TEST(DecoderConfig, NamesTheKeyThatIsWrong) {
  constexpr Bad kBad[] = {
      {R"({"model_type": "llama"})", "vocab_size: is missing"},
      {R"({"model_type": "llama", "vocab_size": "many"})", "vocab_size: found a string, expected an integer"},
      {R"({"model_type": "llama", "vocab_size": 0})", "vocab_size: found 0, expected 1 to"},
      {R"({"model_type": "llama", "vocab_size": 5000000000})", "vocab_size: found 5000000000"},
      {R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 65, "intermediate_size": 6, "num_hidden_layers": 1,
           "num_attention_heads": 2})",
       "num_attention_heads: 2 does not divide hidden_size 65"},
      {R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 6, "num_hidden_layers": 1,
           "num_attention_heads": 4, "num_key_value_heads": 3})",
       "num_key_value_heads: 3 does not divide"},
      {R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 6, "num_hidden_layers": 1,
           "num_attention_heads": 2, "head_dim": 31})",
       "head_dim: found 31, expected an even number"},
      {R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 6, "num_hidden_layers": 1,
           "num_attention_heads": 2, "rms_norm_eps": -1})",
       "rms_norm_eps: found -1"},
      {R"({"model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 6, "num_hidden_layers": 1,
           "num_attention_heads": 2, "hidden_act": "relu"})",
       "hidden_act: 'relu'"},
  };
  for (const Bad& bad : kBad) {
    const Json config = Json::parse(bad.json, "config.json");
    try {
      list_parameters(config, "config.json");
      ADD_FAILURE() << bad.fragment;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(bad.fragment), std::string::npos) << error.what();
    }
  }
}

TEST(DecoderConfig, UnknownFamiliesAndRopeTypesAreNamedWithTheKnownOnes) {
  const Json mamba = Json::parse(R"({"model_type": "mamba"})", "config.json");
  test::expect_error(ErrorCode::unsupported, "'mamba' is not supported (known: llama",
                     [&] { list_parameters(mamba, "config.json"); });
  test::expect_error(ErrorCode::unsupported, "rope type 'spiral' is not supported (known: default",
                     [] { rope_of(R"("rope_scaling": {"type": "spiral", "factor": 2.0})"); });
}

TEST(DecoderConfig, DynamicScalingReachesBeyondTheContextItCountsFrom) {
  const auto context_with = [](const std::string& scaling) {
    const std::string text = R"({"model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 128)" +
                             scaling + "}";
    return outline_model(Json::parse(text, "config.json"), "config.json").info.context_length;
  };
  EXPECT_EQ(context_with(R"(, "rope_scaling": {"type": "dynamic", "factor": 4.0})"), 512);
  EXPECT_EQ(context_with(R"(, "rope_scaling": {"type": "linear", "factor": 4.0})"), 128);
  EXPECT_EQ(context_with(""), 128);
  test::expect_error(ErrorCode::format, "config.json: rope_theta: found 1.0",
                     [&] { context_with(", \"rope_theta\": 1.0"); });
}

// Nothing is rotated, so heads may have any width, and words about a rope mean nothing.
TEST(DecoderConfig, LearnedPositionsNeedNoRope) {
  const Json config = Json::parse(R"({"model_type": "gpt2", "vocab_size": 8, "n_embd": 15, "n_head": 3, "n_layer": 1,
      "n_positions": 64, "rope_scaling": {"type": "dynamic", "factor": 4.0}})",
                                  "config.json");
  const ModelInfo info = outline_model(config, "config.json").info;
  EXPECT_EQ(info.head_dim, 5);
  EXPECT_EQ(info.context_length, 64);
}

TEST(Rope, ReadsBothSpellings) {
  const RopeConfig classic = rope_of(R"("rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 4.0})");
  const RopeConfig modern =
      rope_of(R"("rope_parameters": {"rope_theta": 500000.0, "rope_type": "linear", "factor": 4.0})");
  for (const RopeConfig& c : {classic, modern}) {
    EXPECT_EQ(c.theta, 500000.0);
    EXPECT_EQ(c.scaling, RopeScaling::linear);
    EXPECT_EQ(c.factor, 4.0);
  }
}

/// The angle of component i at a position, from the table.
double angle(const RopeConfig& c, int64_t position, int64_t i) {
  const RopeTable table = rope_table(c, position, 1);
  return std::atan2(table.sin.f32()[i], table.cos.f32()[i]);
}

TEST(Rope, LinearDividesPositions) {
  const RopeConfig plain = rope_of(""), linear = rope_of(R"("rope_scaling": {"type": "linear", "factor": 4.0})");
  EXPECT_NEAR(angle(linear, 8, 1), angle(plain, 2, 1), 1e-6);
}

TEST(Rope, DynamicChangesOnlyBeyondTheTrainedLength) {
  const RopeConfig plain = rope_of(""), dynamic = rope_of(R"("rope_scaling": {"type": "dynamic", "factor": 2.0})");
  EXPECT_NEAR(angle(dynamic, 63, 3), angle(plain, 63, 3), 1e-7);
  EXPECT_GT(std::abs(angle(dynamic, 127, 3) - angle(plain, 127, 3)), 1e-3);
}

TEST(Rope, YarnScalesAttentionAndKeepsFastComponents) {
  const RopeConfig yarn =
      rope_of(R"("rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16})");
  const RopeTable table = rope_table(yarn, 0, 1);
  EXPECT_NEAR(table.cos.f32()[0], 0.1 * std::log(4.0) + 1.0, 1e-6);
  EXPECT_NEAR(angle(yarn, 1, 0), angle(rope_of(""), 1, 0), 1e-6);    // fastest: untouched
  EXPECT_NEAR(angle(yarn, 4, 15), angle(rope_of(""), 1, 15), 1e-6);  // slowest: divided by the factor
}

/// Four long and four short factors, trained on 16 positions, made for 64.
std::string longrope(const std::string& type, const std::string& extra = "") {
  return R"("head_dim": 8, "original_max_position_embeddings": 16, "rope_scaling": {"type": ")" + type +
         R"(", "short_factor": [1, 2, 4, 8], "long_factor": [2, 4, 8, 16])" + extra + "}";
}

TEST(Rope, LongropeChoosesItsFactorsByWhatTheSequenceCanReach) {
  for (const char* name : {"longrope", "su"}) {
    const RopeConfig c = rope_of(longrope(name));
    EXPECT_EQ(c.original_context, 16);
    EXPECT_EQ(c.factor, 4.0);
    const auto angle_at = [&](int64_t capacity, int64_t i) {
      const RopeTable table = rope_table(c, 1, 1, capacity);
      return std::atan2(table.sin.f32()[i], table.cos.f32()[i]);
    };
    for (int64_t i = 0; i < 4; ++i) {
      const double plain = std::pow(10000.0, -static_cast<double>(i) / 4.0);
      EXPECT_NEAR(angle_at(16, i), plain / std::pow(2.0, i), 1e-6) << i;
      EXPECT_NEAR(angle_at(17, i), plain / std::pow(2.0, i + 1), 1e-6) << i;
    }
    EXPECT_NEAR(rope_table(c, 0, 1).cos.f32()[0], std::sqrt(1.0 + std::log(4.0) / std::log(16.0)), 1e-6);
  }
  EXPECT_EQ(rope_of(longrope("longrope", R"(, "attention_factor": 1.5)")).attention_factor, 1.5);
  test::expect_error(ErrorCode::format, "short_factor: found 4 entries, expected 16",
                     [] { rope_of(R"("rope_scaling": {"type": "su", "short_factor": [1, 1, 1, 1]})"); });
  test::expect_error(ErrorCode::format, "short_factor: is missing",
                     [] { rope_of(R"("rope_scaling": {"type": "longrope"})"); });
  test::expect_error(ErrorCode::format, "long_factor: has an entry that is not above 0", [] {
    rope_of(R"("head_dim": 2, "rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [0]})");
  });
}

TEST(Rope, APartOfEachHeadCanBeRotated) {
  const RopeConfig half = rope_of(R"("partial_rotary_factor": 0.5)");
  EXPECT_EQ(half.head_dim, 16);
  Tensor x = Tensor::from(std::vector<float>(64, 1.0f), {1, 64});  // two heads of 32
  x = apply_rope(std::move(x), 32, rope_table(half, 3, 1), nullptr);
  EXPECT_NEAR(x.f32()[0], std::cos(3.0) - std::sin(3.0), 1e-6);
  EXPECT_NEAR(x.f32()[8], std::cos(3.0) + std::sin(3.0), 1e-6);
  for (int64_t i = 16; i < 32; ++i) EXPECT_EQ(x.f32()[i], 1.0f);
  EXPECT_NEAR(x.f32()[32], x.f32()[0], 0);
  test::expect_error(ErrorCode::format, "partial_rotary_factor: found 1.5",
                     [] { rope_of(R"("rope_parameters": {"partial_rotary_factor": 1.5})"); });
  test::expect_error(ErrorCode::format, "which rotates 3 of 32 elements",
                     [] { rope_of(R"("partial_rotary_factor": 0.1)"); });
}

TEST(SlidingWindow, IsReadAsEachFamilyMeansIt) {
  const auto window = [](const std::string& extra, int64_t layer) {
    const Json json = Json::parse(with(extra), "config.json");
    return layer_window(ConfigReader(json, "config.json"), layer, 1);
  };
  EXPECT_EQ(window("", 0), 0);
  EXPECT_EQ(window(R"("sliding_window": null)", 0), 0);
  EXPECT_EQ(window(R"("sliding_window": 8)", 0), 8);
  EXPECT_EQ(window(R"("sliding_window": 8, "use_sliding_window": false)", 0), 0);
  EXPECT_EQ(window(R"("sliding_window": 8, "use_sliding_window": true, "max_window_layers": 1)", 0), 0);
  EXPECT_EQ(window(R"("sliding_window": 8, "layer_types": ["sliding_attention"])", 0), 8);
  EXPECT_EQ(window(R"("sliding_window": 8, "layer_types": ["full_attention"])", 0), 0);
}

}  // namespace
}  // namespace nibble
