// What every writable format has to do, on shapes with partial and crossing blocks.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/parallel.h"
#include "quant/error_stats.h"
#include "quant/format.h"
#include "quant/matmul.h"
#include "support/goldens.h"
#include "support/random.h"

namespace nibble {
namespace {

using test::floats;
using test::gaussian;

struct Variant {
  std::string format;
  EncodeOptions options;
};

std::vector<Variant> variants() {
  std::vector<Variant> out;
  for (const std::string& name : writable_format_names()) {
    const Format& format = find_format(name);
    out.push_back({name, {}});
    if (name == "int8-dynamic") out.push_back({name, {.granularity = Granularity::tensor}});
    if (!format.block_choice) continue;
    for (const int64_t block : {32, 256, 4096}) out.push_back({name, {.block = block}});
    out.push_back({name, {.double_quant = true}});
  }
  return out;
}

std::string describe(const Variant& v, const Shape& shape) {
  return v.format + " block " + std::to_string(v.options.block) + (v.options.double_quant ? " dq " : " ") +
         shape_text(shape);
}

const std::vector<Shape> kShapes = {{1, 1}, {3, 5}, {7, 64}, {5, 72}, {16, 100}, {33, 129}, {64, 256}};

void pack(Weight& w, const ComputeOptions& options = {}, Residency residency = Residency::memory) {
  if (auto* q = std::get_if<QuantizedTensor>(&w); q && q->format->pack) q->format->pack(*q, options, residency);
}

TEST(EveryFormat, StoresTheBytesItsLayoutSays) {
  for (const Variant& v : variants()) {
    for (const Shape& shape : kShapes) {
      const Weight w = encode(gaussian(shape, 1), find_format(v.format), v.options);
      const Weight planned = layout(shape, DType::f32, find_format(v.format), v.options);
      EXPECT_EQ(weight_shape(w), shape);
      if (const auto* q = std::get_if<QuantizedTensor>(&w)) {
        const auto& p = std::get<QuantizedTensor>(planned);
        ASSERT_EQ(q->parts.size(), p.parts.size()) << describe(v, shape);
        for (const auto& [name, part] : q->parts) {
          EXPECT_EQ(part.shape, p.part(name).shape) << describe(v, shape) << name;
          EXPECT_EQ(part.dtype, p.part(name).dtype) << describe(v, shape) << name;
        }
      }
    }
  }
}

// Bounds of the error relative to the scale, from each format's widest gap: half of it, in units of the block's (row's,
// tensor's) largest magnitude; for double quantization the scale itself moves by less than 2 %.
double worst_gap(const std::string& format) {
  if (format == "nf4") return 0.5 * 0.3038;          // -1 to -0.6962
  if (format == "fp4") return 0.5 * 0.3334;          // 2/3 to 1
  if (format == "int4") return 1.0 / 8;              // the top level is 7/8: values up to 1 are clamped to it
  if (format == "int8") return 0.5 / 127 + 0x1p-11;  // rounding to fp16 comes first
  if (format == "int8-dynamic") return 0.5 / 127.5 * 1.01;
  return format == "bf16" ? 0x1p-8 : format == "fp16" ? 0x1p-11 : 0;
}

TEST(EveryFormat, DecodesWithinItsWorstGap) {
  for (const Variant& v : variants()) {
    for (const Shape& shape : kShapes) {
      const Tensor original = gaussian(shape, 2);
      const std::vector<float> x = floats(original);
      const std::vector<float> y = floats(decode(encode(original, find_format(v.format), v.options)));
      float largest = 0;
      for (const float value : x) largest = std::max(largest, std::abs(value));
      const double slack = v.options.double_quant ? 0.05 : 1e-6;
      EXPECT_LE(test::difference(y, x).largest, largest * (worst_gap(v.format) + slack)) << describe(v, shape);
    }
  }
}

TEST(EveryFormat, DecodesRowRangesAsItDecodesTheWhole) {
  for (const Variant& v : variants()) {
    for (const Shape& shape : {Shape{33, 129}, Shape{33, 128}}) {
      Weight w = encode(gaussian(shape, 3), find_format(v.format), v.options);
      const auto* q = std::get_if<QuantizedTensor>(&w);
      if (q == nullptr) continue;
      const std::vector<float> all = floats(decode(w));
      pack(w);
      const auto cols = static_cast<size_t>(shape[1]);
      std::vector<float> part(5 * cols);
      q->format->decode_rows(*q, 17, 22, part.data());
      for (size_t i = 0; i < part.size(); ++i) ASSERT_EQ(part[i], all[17 * cols + i]) << describe(v, shape) << " " << i;
    }
  }
}

/// One result in double precision, and how far a float product may be from it: the order of sums, and for the int8
/// formats half a step of the activations' range for every weight.
struct Exact {
  double value, bound;
};

Exact exact_product(std::span<const float> x, std::span<const float> row, float bias, bool int8) {
  double value = bias, magnitude = std::abs(value), weights = 0, largest = 0;
  for (size_t c = 0; c < x.size(); ++c) {
    value += static_cast<double>(x[c]) * row[c];
    magnitude += std::abs(static_cast<double>(x[c]) * row[c]);
    weights += std::abs(row[c]);
    largest = std::max(largest, std::abs(static_cast<double>(x[c])));
  }
  const double step = int8 ? largest * (1.01 / 127 + 0x1p-11) * weights + 2e-5 * magnitude : 0;
  return {value, magnitude * 0x1p-23 * static_cast<double>(x.size() + 4) + step};
}

TEST(EveryFormat, MultipliesLikeItsDecodedMatrix) {
  for (const Variant& v : variants()) {
    for (const Shape& shape : kShapes) {
      Weight w = encode(gaussian(shape, 4), find_format(v.format), v.options);
      const std::vector<float> matrix = floats(decode(w));
      pack(w);
      const auto rows = static_cast<size_t>(shape[0]), cols = static_cast<size_t>(shape[1]);
      const std::vector<float> x = floats(gaussian({3, shape[1]}, 5)), bias = floats(gaussian({shape[0]}, 6));
      std::vector<float> y(3 * rows);
      matmul(w, {.x = x.data(), .y = y.data(), .tokens = 3, .bias = bias.data()}, {});
      for (size_t i = 0; i < y.size(); ++i) {
        const size_t t = i / rows, r = i % rows;
        const Exact exact =
            exact_product(std::span(x).subspan(t * cols, cols), std::span(matrix).subspan(r * cols, cols), bias[r],
                          v.format.starts_with("int8"));
        EXPECT_LE(std::abs(y[i] - exact.value), exact.bound) << describe(v, shape);
      }
    }
  }
}

/// Weights of 4-bit formats, on which integer activations are allowed.
std::vector<Variant> four_bit_variants() {
  std::vector<Variant> rows = variants();
  std::erase_if(rows, [](const Variant& v) { return !find_format(v.format).block_choice; });
  return rows;
}

constexpr Activations kActivations[] = {Activations::f32, Activations::i16, Activations::i8};

std::vector<float> product(const Weight& w, const Tensor& x, const ComputeOptions& options) {
  std::vector<float> y(static_cast<size_t>(x.rows() * weight_shape(w)[0]));
  matmul(w, {.x = x.f32(), .y = y.data(), .tokens = x.rows()}, options);
  return y;
}

TEST(FourBit, PackingDoesNotChangeABit) {
  for (const Variant& v : four_bit_variants()) {
    for (const Shape& shape : {Shape{33, 128}, Shape{16, 192}, Shape{5, 72}, Shape{1, 64}}) {
      for (const Activations activations : kActivations) {
        const ComputeOptions options = {.activations = activations};
        const Weight stored = encode(gaussian(shape, 9), find_format(v.format), v.options);
        Weight packed = stored, mapped = stored;
        pack(packed, options);
        pack(mapped, options, Residency::mapped);
        EXPECT_EQ(weight_bytes(packed), weight_bytes(stored));
        for (const int64_t tokens : {1, 3, 17}) {
          const Tensor x = gaussian({tokens, shape[1]}, 10);
          const std::vector<float> y = product(packed, x, options);
          EXPECT_EQ(product(mapped, x, options), y) << describe(v, shape) << " tokens " << tokens;
          if (!std::get<QuantizedTensor>(packed).has("records")) continue;  // fused products sum in their own order
          const Tensor first = x.slice_rows(0, 1);
          const std::vector<float> alone = product(packed, first, options);
          EXPECT_TRUE(std::equal(alone.begin(), alone.end(), y.begin())) << describe(v, shape) << " tokens " << tokens;
        }
      }
    }
  }
}

// Half a step of the activations (the largest of 64 is 5792 steps, or at least 81) for every weight, and half a step of
// the levels (the largest is 5792 steps, or at least 80) for every activation.
TEST(FourBit, IntegerActivationsStayWithinTheirSteps) {
  for (const Variant& v : four_bit_variants()) {
    const Shape shape = {16, 192};
    Weight w = encode(gaussian(shape, 11), find_format(v.format), v.options);
    const std::vector<float> matrix = floats(decode(w));
    const auto largest_weight = std::abs(
        *std::max_element(matrix.begin(), matrix.end(), [](float a, float b) { return std::abs(a) < std::abs(b); }));
    pack(w);
    const Tensor x = gaussian({3, shape[1]}, 12);
    for (const auto& [activations, x_steps, w_steps] :
         {std::tuple(Activations::i16, 5792.0, 5792.0), std::tuple(Activations::i8, 81.0, 80.0)}) {
      const std::vector<float> y = product(w, x, {.activations = activations});
      for (size_t i = 0; i < y.size(); ++i) {
        const std::span<const float> token(x.f32() + static_cast<int64_t>(i) / 16 * 192, 192);
        double exact = 0, bound = 0, largest = 0;
        for (const float value : token) largest = std::max(largest, std::abs(static_cast<double>(value)));
        for (size_t c = 0; c < 192; ++c) {
          const double weight = matrix[i % 16 * 192 + c];
          exact += token[c] * weight;
          bound += 0.51 / x_steps * largest * (std::abs(weight) + 0.51 / w_steps * largest_weight) +
                   0.51 / w_steps * largest_weight * std::abs(token[c]) + 1e-6 * std::abs(token[c] * weight);
        }
        EXPECT_LE(std::abs(y[i] - exact), bound) << describe(v, shape);
      }
    }
  }
}

TEST(EveryFormat, ProductsWithOneInputEqualThoseOneByOne) {
  for (const Variant& v : variants()) {
    for (const Activations activations : kActivations) {
      const ComputeOptions options = {.activations = activations};
      const Tensor x = gaussian({3, 128}, 13);
      std::vector<Weight> weights;
      for (const int64_t rows : {40, 7, 16}) {
        weights.push_back(encode(gaussian({rows, 128}, 14), find_format(v.format), v.options));
        pack(weights.back(), options);
      }
      weights.emplace_back(gaussian({5, 128}, 15));  // of another format
      for (const size_t count : {size_t{3}, size_t{4}}) {
        std::vector<std::vector<float>> expected, y;
        std::vector<WeightProduct> products;
        for (size_t i = 0; i < count; ++i) {
          expected.push_back(product(weights[i], x, options));
          y.emplace_back(expected.back().size());
        }
        for (size_t i = 0; i < count; ++i)
          products.push_back({&weights[i], {.x = x.f32(), .y = y[i].data(), .tokens = 3}});
        matmul_all(products, options);
        EXPECT_EQ(y, expected) << v.format;
      }
    }
  }
}

// Codes of 8 bits: many tokens go through turned weights, with the same exact sums.
TEST(EveryFormat, CodesGiveTheSameBitsForManyTokensAsForOne) {
  for (const std::string format : {"int8", "int8-dynamic"}) {
    for (const Shape& shape : {Shape{150, 64}, Shape{64, 100}, Shape{33, 66}, Shape{1, 4}}) {
      Weight w = encode(gaussian(shape, 19), find_format(format), {});
      pack(w);
      for (const int64_t tokens : {33, 96, 203}) {
        const Tensor x = gaussian({tokens, shape[1]}, 20), bias = gaussian({shape[0]}, 21);
        std::vector<float> together(static_cast<size_t>(tokens * shape[0])), alone(together.size());
        const ComputeOptions options = {.tokens_apart = true};
        matmul(w, {.x = x.f32(), .y = together.data(), .tokens = tokens, .bias = bias.f32()}, options);
        for (int64_t t = 0; t < tokens; ++t) {
          matmul(w, {.x = x.f32() + t * shape[1], .y = alone.data() + t * shape[0], .tokens = 1, .bias = bias.f32()},
                 options);
        }
        EXPECT_EQ(together, alone) << format << " " << shape_text(shape) << " " << tokens;
      }
    }
  }
}

// Blocks of 32 take panels of their own: they must not change how their neighbours are multiplied.
TEST(FourBit, ProductsWithOneInputMayHaveOtherBlocks) {
  for (const Activations activations : kActivations) {
    const ComputeOptions options = {.activations = activations};
    const Tensor x = gaussian({2, 128}, 16);
    Weight packed = encode(gaussian({16, 128}, 17), find_format("nf4"), {});
    Weight plain = encode(gaussian({16, 128}, 18), find_format("nf4"), {.block = 32});
    pack(packed, options);
    pack(plain, options);
    std::vector<float> a(32), b(32);
    const WeightProduct products[] = {{&packed, {.x = x.f32(), .y = a.data(), .tokens = 2}},
                                      {&plain, {.x = x.f32(), .y = b.data(), .tokens = 2}}};
    matmul_all(products, options);
    EXPECT_EQ(a, product(packed, x, options));
    EXPECT_EQ(b, product(plain, x, options));
  }
}

TEST(EveryFormat, DoesNotDependOnTheThreadCount) {
  for (const Variant& v : variants()) {
    std::vector<std::vector<float>> decoded, products;
    for (const int threads : {1, 2, 3}) {
      set_thread_count(threads);
      Weight w = encode(gaussian({65, 130}, 7), find_format(v.format), v.options);
      decoded.push_back(floats(decode(w)));
      pack(w);
      const Tensor x = gaussian({2, 130}, 8);
      products.emplace_back(130);
      matmul(w, {.x = x.f32(), .y = products.back().data(), .tokens = 2}, {});
    }
    set_thread_count(0);
    EXPECT_EQ(decoded[0], decoded[1]) << v.format;
    EXPECT_EQ(decoded[0], decoded[2]) << v.format;
    EXPECT_EQ(products[0], products[1]) << v.format;
    EXPECT_EQ(products[0], products[2]) << v.format;
  }
}

TEST(EveryFormat, ZerosTinyAndHugeValuesStayFinite) {
  for (const Variant& v : variants()) {
    for (const float value : {0.0f, -0.0f, 1e-45f, 1e-39f, 1e-20f, 6e4f, -6e4f}) {
      Tensor t(DType::f32, {4, 100});
      for (int64_t i = 0; i < t.count(); ++i) t.f32()[i] = i % 3 ? value : 0.0f;
      for (const float y : floats(decode(encode(t, find_format(v.format), v.options)))) {
        ASSERT_TRUE(std::isfinite(y)) << v.format << " " << value;
        if (value == 0.0f) {
          ASSERT_EQ(y, 0.0f) << v.format;
        }
      }
    }
  }
}

// A NaN or an infinity among a token's values shows in all that is computed from it, and in nothing else.
TEST(EveryFormat, WhatIsNotFiniteShows) {
  for (const Variant& v : variants()) {
    for (const Activations activations : {Activations::f32, Activations::i16, Activations::i8}) {
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        Weight w = encode(gaussian({33, 192}, 4), find_format(v.format), v.options);
        const ComputeOptions options = {.activations = activations};
        pack(w, options);
        Tensor x = gaussian({3, 192}, 5);
        x.f32()[192 + 77] = bad;
        std::vector<float> y(3 * 33);
        matmul(w, {.x = x.f32(), .y = y.data(), .tokens = 3}, options);
        for (size_t i = 0; i < y.size(); ++i) {
          ASSERT_EQ(std::isfinite(y[i]), i / 33 != 1) << v.format << " " << i << " " << bad;
        }
      }
    }
  }
}

// The figures that decided int4's scale rule; docs/formats.md quotes them.
TEST(Int4, MapsTheExtremeToMinusEight) {
  Tensor t(DType::f32, {1, 64});
  for (int64_t i = 0; i < 64; ++i) t.f32()[i] = static_cast<float>(i % 7);
  t.f32()[9] = 10.0f;
  const std::vector<float> y = floats(decode(encode(t, find_format("int4"), {})));
  EXPECT_EQ(y[9], 10.0f);
  t.f32()[9] = -10.0f;
  EXPECT_EQ(floats(decode(encode(t, find_format("int4"), {})))[9], -10.0f);
}

TEST(Int4, BlocksThatAreTooSmallToDivideByAreZero) {
  for (const float extreme : {0.0f, 1e-45f, 0.9e-38f, 1.5e-38f, 2.3e-38f}) {  // 8 / 2.3e-38 is beyond f32
    Tensor t(DType::f32, {1, 64});
    t.f32()[9] = extreme;
    EXPECT_EQ(floats(decode(encode(t, find_format("int4"), {}))), std::vector<float>(64, 0.0f)) << extreme;
  }
  Tensor t(DType::f32, {1, 64});
  t.f32()[9] = 2.4e-38f;
  EXPECT_EQ(floats(decode(encode(t, find_format("int4"), {})))[9], 2.4e-38f);
}

TEST(Int4, RoundsToNearestEven) {
  Tensor t(DType::f32, {1, 64});
  t.f32()[0] = -8.0f;  // steps of 1
  for (int64_t i = 1; i < 32; ++i) t.f32()[i] = static_cast<float>(i - 16) * 0.5f;
  const std::vector<float> y = floats(decode(encode(t, find_format("int4"), {})));
  for (size_t i = 1; i < 32; ++i) EXPECT_EQ(y[i], std::min(std::nearbyint(t.f32()[i]), 7.0f)) << i;
}

TEST(ComputeDtype, RoundsActivationsWeightsAndResults) {
  Weight w = encode(gaussian({8, 64}, 9), find_format("nf4"), {});
  const Tensor x = gaussian({2, 64}, 10);
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const auto round = [&](std::vector<float> values) { return floats(Tensor::from(values).cast(dtype)); };
    const std::vector<float> matrix = round(floats(decode(w))), input = round(floats(x));
    std::vector<float> y(16);
    matmul(w, {.x = x.f32(), .y = y.data(), .tokens = 2}, {.compute_dtype = dtype});
    EXPECT_EQ(y, round(y));
    for (size_t t = 0; t < 2; ++t) {
      for (size_t r = 0; r < 8; ++r) {
        double exact = 0;
        for (size_t c = 0; c < 64; ++c) exact += static_cast<double>(input[t * 64 + c]) * matrix[r * 64 + c];
        // Half a unit in the last place of the result's dtype, and the sum's own rounding.
        EXPECT_LE(std::abs(y[t * 8 + r] - exact), std::abs(exact) * (dtype == DType::bf16 ? 0x1p-8 : 0x1p-10) + 1e-4);
      }
    }
  }
}

TEST(ComputeDtype, Fp16OverflowNamesTheLayerAndSuggestsBf16) {
  Tensor t(DType::f32, {2, 64});
  for (int64_t i = 0; i < t.count(); ++i) t.f32()[i] = 100.0f;
  const Weight w = encode(t, find_format("nf4"), {});
  const Tensor x = t.slice_rows(0, 1);
  std::vector<float> y(2);
  test::expect_error(ErrorCode::invalid_argument, "layer.7: the result overflows fp16", [&] {
    matmul(w, {.x = x.f32(), .y = y.data(), .tokens = 1, .name = "layer.7"}, {.compute_dtype = DType::f16});
  });
  matmul(w, {.x = x.f32(), .y = y.data(), .tokens = 1}, {.compute_dtype = DType::bf16});
  EXPECT_NEAR(y[0], 640000.0f, 640000.0f * 0x1p-8f);
}

TEST(Formats, RefuseWhatTheyDoNotHave) {
  const Tensor t = gaussian({4, 64}, 11);
  const auto refused = [&](const std::string& format, EncodeOptions options, const std::string& fragment) {
    test::expect_error(ErrorCode::invalid_argument, fragment, [&] { encode(t, find_format(format), options); });
  };
  refused("nf4", {.block = 48}, "block 48");
  refused("nf4", {.block = 8192}, "block 8192");
  refused("int8", {.double_quant = true}, "double_quant has no meaning");
  for (const std::string format : {"nf4", "int8", "bf16"}) {
    refused(format, {.granularity = Granularity::tensor}, "granularity has no meaning for format '" + format + "'");
  }
  refused("bf16", {.block = 64}, "no block size");
  refused("nf5", {}, "did you mean 'nf4'");
}

}  // namespace
}  // namespace nibble
