#include "io/quantization_config.h"

#include <gtest/gtest.h>

#include "support/files.h"

namespace nibble {
namespace {

using test::expect_error;

QuantizationConfig parse(const std::string& member) {
  return parse_quantization_config(Json::parse("{\"quantization_config\":" + member + "}", "t"), "t");
}

TEST(QuantizationConfig, IsTheSameAsTransformersWrites) {
  NIBBLE_NEED_SHARED("goldens/bnb");
  struct Row {
    const char *folder, *format;
    EncodeOptions options;
    DType compute_dtype;
    std::vector<std::string> skip_modules;
  };
  for (const Row& row : std::vector<Row>{{"llama-nf4", "nf4", {}, DType::f32, {}},
                                         {"llama-nf4-dq", "nf4", {.double_quant = true}, DType::f32, {}},
                                         {"llama-nf4-dq-bf16", "nf4", {.double_quant = true}, DType::f32, {}},
                                         {"bert-fp4-dq", "fp4", {.double_quant = true}, DType::f32, {}},
                                         {"bert-nf4-skip", "nf4", {}, DType::f32, {"classifier"}},
                                         {"llama-int8", "int8", {}, DType::f32, {}}}) {
    const auto path = test::shared_folder() / "goldens/bnb" / row.folder / "config.json";
    const Json config = Json::parse_file(path.string());
    const Json written = quantization_config(find_format(row.format), row.options, row.compute_dtype, row.skip_modules);
    EXPECT_EQ(written.dump(1), config.find("quantization_config")->dump(1)) << row.folder;
    const QuantizationConfig read = parse_quantization_config(config, "t");
    EXPECT_EQ(read.quant_method, "bitsandbytes");
    EXPECT_EQ(read.quant_type, row.format);
    EXPECT_EQ(read.double_quant, row.options.double_quant);
    EXPECT_EQ(read.compute_dtype, row.compute_dtype);
    EXPECT_EQ(read.skip_modules, row.skip_modules);
  }
}

TEST(QuantizationConfig, NibblesOwnFormatsAreReadBack) {
  const Json member =
      quantization_config(find_format("int4"), {.block = 128, .double_quant = true}, DType::bf16, {"lm_head"});
  EXPECT_EQ(member.dump(), R"({"block":128,"compute_dtype":"bfloat16","double_quant":true,"granularity":"channel",)"
                           R"("quant_method":"nibble","quant_type":"int4","skip_modules":["lm_head"]})");
  const QuantizationConfig read = parse(member.dump());
  EXPECT_EQ(read.quant_method, "nibble");
  EXPECT_EQ(read.quant_type, "int4");
  EXPECT_TRUE(read.double_quant);
  EXPECT_EQ(read.compute_dtype, DType::bf16);
  EXPECT_EQ(read.skip_modules, std::vector<std::string>{"lm_head"});
}

TEST(QuantizationConfig, ShortFormsMeanBitsandbytes) {
  EXPECT_FALSE(parse_quantization_config(Json::object(), "t").is_quantized());
  EXPECT_FALSE(parse("null").is_quantized());
  EXPECT_EQ(parse(R"({"load_in_4bit":true})").quant_method, "bitsandbytes");
  EXPECT_EQ(parse(R"({"load_in_4bit":true})").quant_type, "fp4");
  EXPECT_EQ(parse(R"({"load_in_8bit":true,"llm_int8_threshold":4.5})").quant_type, "int8");
  EXPECT_EQ(parse(R"({"load_in_8bit":true,"llm_int8_threshold":4.5})").threshold, 4.5f);
}

TEST(QuantizationConfig, OtherMethodsAndWrongTypesAreRefused) {
  for (const char* method : {"gptq", "awq", "compressed-tensors", "fp8"}) {
    expect_error(ErrorCode::unsupported, std::string("quant_method '") + method + "' is not supported",
                 [&] { parse(std::string(R"({"quant_method":")") + method + "\"}"); });
  }
  expect_error(ErrorCode::format, "has no quant_method", [] { parse("{}"); });
  expect_error(ErrorCode::format, "quantization_config: found an array", [] { parse("[]"); });
  expect_error(ErrorCode::format, "load_in_4bit: found an integer, expected a boolean",
               [] { parse(R"({"load_in_4bit":1})"); });
  expect_error(ErrorCode::format, "bnb_4bit_compute_dtype: 'int8', expected float32",
               [] { parse(R"({"load_in_4bit":true,"bnb_4bit_compute_dtype":"int8"})"); });
  expect_error(ErrorCode::format, "llm_int8_skip_modules: found a string, expected an array",
               [] { parse(R"({"load_in_4bit":true,"llm_int8_skip_modules":"lm_head"})"); });
}

}  // namespace
}  // namespace nibble
