// The dense model that a quantized one stands for.
#include <gtest/gtest.h>

#include <cmath>

#include "nibble/formats.h"
#include "nibble/inspect.h"
#include "nibble/quantize.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

struct Distance {
  double largest = 0, scale = 0;
};

Distance distance(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  Distance d;
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    d.largest = std::max(d.largest, static_cast<double>(std::abs(a[i] - b[i])));
    d.scale = std::max(d.scale, static_cast<double>(std::abs(b[i])));
  }
  return d;
}

// 4-bit layers compute in float32 with the decoded weights, so the dense model gives the same logits but for the order
// of sums. The int8 formats round activations too, which a dense model does not: half a step of 1/127 each.
TEST(Dequantize, StandsForTheSameModel) {
  const std::vector<int32_t> ids = tiny().encode("Captain Wentworth was in the country, and then");
  for (const FormatInfo& format : list_formats()) {
    const TempFolder folder;
    const std::string quantized = (folder / "quantized").string(), dense = (folder / "dense").string();
    quantize(tiny_folder().string(), quantized, {.format = format.name});
    const DequantizeReport report = dequantize(quantized, dense);
    EXPECT_EQ(report.bytes_after, 435'072u * 4) << format.name;
    const ModelDescription d = inspect(dense);
    EXPECT_EQ(d.quantization, "none") << format.name;
    EXPECT_EQ(d.tensors.size(), 29u) << format.name;
    for (const TensorInfo& tensor : d.tensors) EXPECT_EQ(tensor.dtype, "fp32") << tensor.name;
    const CausalLM exact = load(quantized, {.activations = "fp32"});
    const Distance distance_to_quantized = distance(load(dense).logits(ids), exact.logits(ids));
    const double tolerance = format.name.starts_with("int8") ? 0.02 : 1e-5;
    EXPECT_LT(distance_to_quantized.largest, tolerance * distance_to_quantized.scale) << format.name;
  }
}

TEST(Dequantize, ADenseModelComesBackAsItWas) {
  const TempFolder folder;
  const std::string wide = (folder / "wide").string(), back = (folder / "back").string();
  dequantize(tiny_folder().string(), wide, {.dtype = DType::f32});
  dequantize(wide, back, {.dtype = DType::bf16});
  const SafetensorsFile original(tiny_folder() / "model.safetensors");
  const SafetensorsFile again(std::filesystem::path(back) / "model.safetensors");
  for (const SafetensorsEntry& entry : original.entries()) {
    const Tensor a = original.load(entry.name), b = again.load(entry.name);
    EXPECT_EQ(b.dtype, DType::bf16);
    EXPECT_TRUE(std::equal(a.raw(), a.raw() + a.bytes(), b.raw(), b.raw() + b.bytes())) << entry.name;
  }
  EXPECT_EQ(inspect(back).bytes, inspect(tiny_folder().string()).bytes);
  const Json config = Json::parse_file(back + "/config.json");
  EXPECT_EQ(config.dump(), Json::parse_file((tiny_folder() / "config.json").string()).dump());
}

TEST(Dequantize, GgufBecomesADenseFolder) {
  NIBBLE_NEED_SHARED("goldens/gguf");
  const std::vector<int32_t> ids = {3, 14, 15, 92, 65, 35, 89};
  for (const char* name : {"f32", "q4_1", "mixed"}) {
    const std::string gguf = (shared_folder() / "goldens/gguf" / (std::string(name) + ".gguf")).string();
    const TempFolder folder;
    dequantize(gguf, (folder / "dense").string());
    // The block formats multiply rounded activations; f32 does not.
    const Distance d = distance(load(folder / "dense").logits(ids), load(gguf).logits(ids));
    EXPECT_LT(d.largest, (std::string(name) == "f32" ? 1e-6 : 0.02) * d.scale) << name;
  }
}

TEST(Dequantize, RefusesWithoutWritingAnything) {
  const TempFolder folder;
  const std::string out = (folder / "out").string();
  for (const DType dtype : {DType::i8, DType::f64}) {
    expect_error(ErrorCode::invalid_argument, "expected fp32, fp16 or bf16",
                 [&] { dequantize(tiny_folder().string(), out, {.dtype = dtype}); });
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  dequantize(tiny_folder().string(), out);
  expect_error(ErrorCode::exists, "--overwrite", [&] { dequantize(tiny_folder().string(), out); });
  dequantize(tiny_folder().string(), out, {.dtype = DType::bf16, .overwrite = true});
  EXPECT_EQ(inspect(out).bytes, 870'144u);
}

}  // namespace
}  // namespace nibble
