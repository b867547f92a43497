// LLM.int8() and int8-dynamic against bitsandbytes and torch.
#include <gtest/gtest.h>

#include <cstring>

#include "core/dtype.h"
#include "quant/format.h"
#include "quant/matmul.h"
#include "support/goldens.h"
#include "support/sha256.h"

namespace nibble {
namespace {

using namespace nibble::test;

TEST(Int8Golden, RowsAndScalesAreExact) {
  NIBBLE_NEED_SHARED("goldens/vectors/int8_rows.json");
  const Json index = shared_json("goldens/vectors/int8_rows.json");
  const SafetensorsFile pool(shared_folder() / "goldens/vectors/pool.safetensors");
  const SafetensorsFile data(shared_folder() / "goldens/vectors/int8_rows.safetensors");
  for (const auto& [name, c] : index.as_object("int8_rows")) {
    const Tensor values = pool.load(text_at(c, "pool"));
    const Shape shape = shape_at(c, "shape");
    Tensor x =
        Tensor::from(std::span(values.f32() + int_at(c, "offset"), static_cast<size_t>(element_count(shape))), shape);
    if (text_at(c, "via_dtype") == "float16") {
      for (int64_t i = 0; i < x.count(); ++i) x.f32()[i] = std::clamp(x.f32()[i], -6e4f, 6e4f);
    }
    const Weight w = encode(x.cast(parse_dtype(text_at(c, "via_dtype"))), find_format("int8"), {});
    const auto& q = std::get<QuantizedTensor>(w);
    const Tensor codes = data.load(name + ".q"), absmax = data.load(name + ".absmax");
    EXPECT_EQ(std::memcmp(q.part("CB").raw(), codes.raw(), codes.bytes()), 0) << name;
    EXPECT_EQ(std::memcmp(q.part("SCB").raw(), absmax.raw(), absmax.bytes()), 0) << name;
    const Tensor decoded = decode(w);
    EXPECT_EQ(sha256({decoded.raw(), decoded.bytes()}).substr(0, 16), text_at(*c.find("dequantized"), "sha256_16"))
        << name;
  }
}

// In float32 only the order of a few float operations differs; in 16-bit dtypes bitsandbytes rounds the result, and the
// decoded weights of outlier columns, once more.
TEST(Int8Golden, ProductsWithOutliers) {
  NIBBLE_NEED_SHARED("goldens/vectors/int8_products.json");
  const Json index = shared_json("goldens/vectors/int8_products.json");
  const SafetensorsFile data(shared_folder() / "goldens/vectors/int8_products.safetensors");
  for (const auto& [name, c] : index.as_object("int8_products")) {
    const DType dtype = parse_dtype(text_at(c, "dtype"));
    const Tensor x = data.load(name + ".x").cast(DType::f32);
    const Weight w = encode(data.load(name + ".weight").cast(DType::f32).cast(dtype), find_format("int8"), {});
    const auto& q = std::get<QuantizedTensor>(w);
    const Tensor codes = data.load(name + ".CB");
    for (int64_t i = 0; i < codes.count(); ++i) {
      ASSERT_EQ(q.part("CB").data<int8_t>()[i], codes.data<int8_t>()[i]) << name << " " << i;
    }
    const Tensor bias = data.find(name + ".bias") ? data.load(name + ".bias").cast(DType::f32) : Tensor();
    std::vector<float> y(static_cast<size_t>(x.rows() * q.rows()));
    ComputeOptions options;
    options.int8_threshold = static_cast<float>(c.find("threshold")->as_double(name));
    matmul(w, {.x = x.f32(), .y = y.data(), .tokens = x.rows(), .bias = bias.empty() ? nullptr : bias.f32()}, options);
    const double tolerance = dtype == DType::f32 ? 1e-6 : dtype == DType::f16 ? 2e-3 : 1.6e-2;
    EXPECT_LE(difference(y, floats(data.load(name + ".y"))).relative(), tolerance) << name;
  }
}

struct Engine {
  std::string name;
  bool reduce_range;
};

TEST(Int8DynamicGolden, WeightsAreTorchsAndProductsFollowEachEngine) {
  NIBBLE_NEED_SHARED("goldens/torch/dynamic.safetensors");
  const SafetensorsFile data(shared_folder() / "goldens/torch/dynamic.safetensors");
  int checked = 0;
  for (const Engine& engine : {Engine{"x86", true}, {"fbgemm", true}, {"onednn", true}, {"qnnpack", false}}) {
    for (const std::string scheme : {"per_tensor", "per_channel"}) {
      for (int layer = 0; layer < 16; ++layer) {
        const std::string input = "l" + std::to_string(layer);
        const std::string name = input + "." + engine.name + "." + scheme;
        if (!data.find(name + ".w8")) continue;
        Weight w = encode(data.load(input + ".w"), find_format("int8-dynamic"),
                          {.granularity = scheme == "per_tensor" ? Granularity::tensor : Granularity::channel});
        auto& q = std::get<QuantizedTensor>(w);
        const Tensor codes = data.load(name + ".w8"), scale = data.load(name + ".scale");
        EXPECT_EQ(std::memcmp(q.part("data").raw(), codes.raw(), codes.bytes()), 0) << name;
        EXPECT_EQ(std::memcmp(q.part("scale").raw(), scale.raw(), scale.bytes()), 0) << name;
        q.format->pack(q, {}, Residency::memory);
        const Tensor x = data.load(input + ".x");
        const Tensor bias = data.find(input + ".b") ? data.load(input + ".b") : Tensor();
        std::vector<float> y(static_cast<size_t>(x.rows() * q.rows()));
        ComputeOptions options;
        options.reduce_range = engine.reduce_range;
        options.per_token = false;
        matmul(w, {.x = x.f32(), .y = y.data(), .tokens = x.rows(), .bias = bias.empty() ? nullptr : bias.f32()},
               options);
        // Exact integers; what is left is the order of a few float operations (torch's own engines differ by 1e-6).
        EXPECT_LE(difference(y, floats(data.load(name + ".y"))).relative(), 1e-6) << name;
        ++checked;
      }
    }
  }
  EXPECT_GE(checked, 8);
}

}  // namespace
}  // namespace nibble
