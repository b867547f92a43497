// The configuration in transformers' words: every field, every contradiction, every unknown key.
#include "nibble/bitsandbytes_config.h"

#include <gtest/gtest.h>

#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

TEST(BitsAndBytesConfig, HasTransformersDefaults) {
  const BitsAndBytesConfig config = BitsAndBytesConfig::from_json("{}");
  EXPECT_FALSE(config.load_in_4bit || config.load_in_8bit);
  EXPECT_EQ(config.llm_int8_threshold, 6.0f);
  EXPECT_TRUE(config.llm_int8_skip_modules.empty());
  EXPECT_EQ(config.bnb_4bit_compute_dtype, DType::f32);
  EXPECT_EQ(config.bnb_4bit_quant_type, "fp4");
  EXPECT_FALSE(config.bnb_4bit_use_double_quant);
  EXPECT_EQ(config.bnb_4bit_quant_storage, "uint8");
}

TEST(BitsAndBytesConfig, ReadsEveryFieldAndWritesItBack) {
  const char* four_bit = R"({"_load_in_4bit": true, "_load_in_8bit": false, "load_in_4bit": true, "load_in_8bit": false,
    "llm_int8_threshold": 4.5, "llm_int8_skip_modules": ["lm_head", "down_proj"], "llm_int8_has_fp16_weight": false,
    "llm_int8_enable_fp32_cpu_offload": true, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": true, "bnb_4bit_quant_storage": "uint8", "quant_method": "bitsandbytes"})";
  const BitsAndBytesConfig config = BitsAndBytesConfig::from_json(four_bit);
  EXPECT_TRUE(config.load_in_4bit);
  EXPECT_TRUE(config.bnb_4bit_use_double_quant);
  EXPECT_TRUE(config.llm_int8_enable_fp32_cpu_offload);
  EXPECT_EQ(config.llm_int8_threshold, 4.5f);
  EXPECT_EQ(config.llm_int8_skip_modules, std::vector<std::string>({"lm_head", "down_proj"}));
  EXPECT_EQ(config.bnb_4bit_compute_dtype, DType::bf16);
  EXPECT_EQ(config.bnb_4bit_quant_type, "nf4");
  const Json written = Json::parse(config.to_json(), "written"), given = Json::parse(four_bit, "given");
  for (const auto& [key, value] : given.as_object("given")) {
    ASSERT_NE(written.find(key), nullptr) << key;
    EXPECT_EQ(written.find(key)->dump(), value.dump()) << key;
  }
  EXPECT_EQ(written.as_object("written").size(), given.as_object("given").size());
  EXPECT_EQ(BitsAndBytesConfig::from_json(config.to_json()).to_json(), config.to_json());
}

TEST(BitsAndBytesConfig, NullMeansTheDefault) {
  const BitsAndBytesConfig config =
      BitsAndBytesConfig::from_json(R"({"llm_int8_skip_modules": null, "bnb_4bit_compute_dtype": null})");
  EXPECT_TRUE(config.llm_int8_skip_modules.empty());
  EXPECT_EQ(config.bnb_4bit_compute_dtype, DType::f32);
}

TEST(BitsAndBytesConfig, RefusesContradictionsAndUnknownValues) {
  struct Row {
    const char* json;
    const char* message;
  };
  const std::vector<Row> rows = {
      {R"({"load_in_4bit": true, "load_in_8bit": true})", "exclude each other"},
      {R"({"llm_int8_threshold": -1})", "llm_int8_threshold"},
      {R"({"load_in_8bit": true, "llm_int8_has_fp16_weight": true})", "llm_int8_has_fp16_weight"},
      {R"({"bnb_4bit_quant_type": "nf5"})", "'nf5', expected nf4, fp4 or int4"},
      {R"({"bnb_4bit_quant_storage": "float16"})", "bnb_4bit_quant_storage: found 'float16'"},
      {R"({"load_in_8bit": true, "bnb_4bit_use_double_quant": true})", "bnb_4bit_use_double_quant"},
      {R"({"bnb_4bit_compute_dtype": "int8"})", "bnb_4bit_compute_dtype"},
      {R"({"bnb_4bit_compute_dtype": "float99"})", "float99"},
      {R"({"load_in_4bits": true})", "unknown key 'load_in_4bits', the nearest is 'load_in_4bit'"},
      {R"({"bnb_4bit_quanttype": "nf4"})", "the nearest is 'bnb_4bit_quant_type'"},
      {R"({"zzz": 1})", "unknown key 'zzz'"}};
  for (const Row& row : rows) {
    expect_error(ErrorCode::invalid_argument, row.message, [&] { BitsAndBytesConfig::from_json(row.json); });
  }
}

TEST(BitsAndBytesConfig, RefusesWrongTypesNamingTheField) {
  struct Row {
    const char* field;
    const char* value;
  };
  const std::vector<Row> rows = {{"load_in_4bit", "1"},
                                 {"load_in_8bit", "\"true\""},
                                 {"llm_int8_threshold", "\"6\""},
                                 {"llm_int8_skip_modules", "\"lm_head\""},
                                 {"llm_int8_skip_modules", "[1]"},
                                 {"llm_int8_enable_fp32_cpu_offload", "0"},
                                 {"llm_int8_has_fp16_weight", "null"},
                                 {"bnb_4bit_compute_dtype", "32"},
                                 {"bnb_4bit_quant_type", "4"},
                                 {"bnb_4bit_use_double_quant", "\"yes\""},
                                 {"bnb_4bit_quant_storage", "8"}};
  for (const Row& row : rows) {
    const std::string json = std::string("{\"") + row.field + "\": " + row.value + "}";
    expect_error(ErrorCode::format, row.field, [&] { BitsAndBytesConfig::from_json(json); });
  }
  expect_error(ErrorCode::format, "", [] { BitsAndBytesConfig::from_json("[]"); });
  expect_error(ErrorCode::format, "", [] { BitsAndBytesConfig::from_json("{"); });
}

// The same quantization in transformers' words and in nibble's gives the same numbers.
TEST(BitsAndBytesConfig, SaysWhatFormatSays) {
  const std::vector<int32_t> ids = tiny().encode("Anne was tenderness itself.");
  using C = BitsAndBytesConfig;
  const auto logits = [&](const LoadModelOptions& options) { return load(tiny_folder(), options).logits(ids); };
  const std::vector<float> nf4 = logits({.format = "nf4"});
  EXPECT_EQ(logits({.quantization_config = C{.load_in_4bit = true, .bnb_4bit_quant_type = "nf4"}}), nf4);
  EXPECT_EQ(logits({.quantization_config = C{.load_in_4bit = true}}), logits({.format = "fp4"}));
  EXPECT_EQ(logits({.quantization_config = C{.load_in_8bit = true}}), logits({.format = "int8"}));
  EXPECT_EQ(logits({.quantization_config = C{}}), tiny().logits(ids));
  EXPECT_EQ(logits({.quantization_config = C{.load_in_4bit = true,
                                             .llm_int8_skip_modules = {"mlp.down_proj"},
                                             .bnb_4bit_compute_dtype = DType::bf16,
                                             .bnb_4bit_quant_type = "nf4",
                                             .bnb_4bit_use_double_quant = true}}),
            logits({.format = "nf4", .double_quant = true, .skip = {"mlp.down_proj"}, .compute_dtype = DType::bf16}));
  EXPECT_NE(logits({.format = "nf4", .double_quant = true}), nf4);
  EXPECT_NE(logits({.format = "nf4", .skip = {"mlp.down_proj"}}), nf4);
  EXPECT_NE(logits({.format = "nf4", .compute_dtype = DType::bf16}), nf4);
  expect_error(ErrorCode::invalid_argument, "quantization_config",
               [&] { logits({.quantization_config = C{.load_in_4bit = true}, .format = "nf4"}); });
  expect_error(ErrorCode::invalid_argument, "exclude each other",
               [&] { logits({.quantization_config = C{.load_in_8bit = true, .load_in_4bit = true}}); });
}

}  // namespace
}  // namespace nibble
