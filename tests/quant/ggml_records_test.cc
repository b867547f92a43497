// GGUF blocks as records: the same values, the same products packed or not.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>

#include "core/parallel.h"
#include "quant/format.h"
#include "quant/formats/ggml.h"
#include "quant/matmul.h"
#include "quant/resident.h"
#include "support/goldens.h"
#include "support/random.h"

namespace nibble {
namespace {

using test::gaussian;

std::vector<const Format*> packed_formats() {
  std::vector<const Format*> formats;
  for (const Format& format : ggml_formats()) {
    if (format.pack != nullptr) formats.push_back(&format);
  }
  return formats;
}

/// mask: of every byte; 0xbf leaves no f16 that is not finite, whichever bytes a type keeps its scales in.
QuantizedTensor random_blocks(const Format& format, const Shape& shape, uint8_t mask, uint32_t seed = 3) {
  QuantizedTensor w = format.layout(shape, {});
  w.format = &format;
  Tensor data(DType::u8, w.parts["data"].shape);
  std::mt19937 random(seed);
  for (int64_t i = 0; i < data.count(); ++i) data.data<uint8_t>()[i] = static_cast<uint8_t>(random()) & mask;
  // An exponent of mxfp4 is a byte of its own: around 1 and no more.
  for (int64_t i = 0; format.name == "mxfp4" && i < data.count(); i += 17)
    data.data<uint8_t>()[i] = static_cast<uint8_t>(120 + i % 9);
  w.parts["data"] = std::move(data);
  return w;
}

QuantizedTensor packed(QuantizedTensor w, Residency residency = Residency::memory) {
  w.format->pack(w, {}, residency);
  return w;
}

std::vector<float> product(const QuantizedTensor& w, const Tensor& x, Activations activations) {
  std::vector<float> y(static_cast<size_t>(x.rows() * w.rows()));
  matmul(w, {.x = x.f32(), .y = y.data(), .tokens = x.rows()}, {.activations = activations});
  return y;
}

constexpr Activations kActivations[] = {Activations::f32, Activations::i16, Activations::i8};
const std::vector<Shape> kShapes = {{1, 256}, {16, 256}, {37, 768}};

TEST(GgmlRecords, DecodeToTheStoredValues) {
  for (const Format* format : packed_formats()) {
    for (const Shape& shape : kShapes) {
      for (const uint8_t mask : {uint8_t{0xbf}, uint8_t{0xff}, uint8_t{0}}) {
        const QuantizedTensor stored = random_blocks(*format, shape, mask), records = packed(stored);
        ASSERT_TRUE(records.has("records")) << format->name;
        EXPECT_EQ(weight_bytes(records), weight_bytes(stored)) << format->name;
        const std::vector<float> a = test::floats(decode(stored)), b = test::floats(decode(records));
        for (size_t i = 0; i < a.size(); ++i) {
          ASSERT_TRUE(a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) << format->name << " value " << i;
        }
        std::vector<float> row(static_cast<size_t>(shape[1]));
        format->decode_rows(records, shape[0] - 1, shape[0], row.data());
        EXPECT_TRUE(mask == 0xff || std::equal(row.begin(), row.end(), b.end() - shape[1])) << format->name;
      }
    }
  }
}

TEST(GgmlRecords, PackingDoesNotChangeABitOfAProduct) {
  for (const Format* format : packed_formats()) {
    for (const Shape& shape : kShapes) {
      const QuantizedTensor stored = random_blocks(*format, shape, 0xbf), records = packed(stored);
      ASSERT_FALSE(packed(stored, Residency::mapped).has("records"));
      for (const Activations activations : kActivations) {
        for (const int64_t tokens : {1, 3, 17}) {
          const Tensor x = gaussian({tokens, shape[1]}, 4);
          const std::vector<float> y = product(records, x, activations);
          ASSERT_EQ(product(stored, x, activations), y) << format->name << " " << tokens << " tokens";
          const std::vector<float> first = product(records, x.slice_rows(0, 1), activations);
          ASSERT_TRUE(std::equal(first.begin(), first.end(), y.begin())) << format->name;
        }
      }
    }
  }
}

struct Expected {
  double value, bound;
};

// 5792 and 81 steps of the largest activation of 64; the levels of 4-bit types are whole numbers and exact, except that
// the table of iq4 takes 80 steps or more with int8. These errors are independent, so their squares add up: twice the
// step is 3.5 deviations of an error that is even within one, and the largest values stand for all of a block. Twice
// again, because a scale or minimum may be twice as large as the weights that they give. Any order of f32 sums.
Expected exact_product(const float* row, const float* token, int64_t k, double step) {
  double exact = 0, squares = 0, magnitude = 0;
  for (int64_t begin = 0; begin < k; begin += 64) {
    double largest = 0, largest_weight = 0;
    for (int64_t i = begin; i < begin + 64; ++i) {
      exact += double{row[i]} * token[i];
      largest = std::max(largest, std::fabs(double{token[i]}));
      largest_weight = std::max(largest_weight, std::fabs(double{row[i]}));
    }
    squares += 64 * largest * largest * largest_weight * largest_weight;
    magnitude += 64 * largest * largest_weight;
  }
  return {exact, 4 * step * std::sqrt(squares) + 0x1p-20 * magnitude};
}

TEST(GgmlRecords, ProductsAreThoseOfTheDecodedMatrix) {
  for (const Format* format : packed_formats()) {
    const QuantizedTensor stored = random_blocks(*format, {37, 768}, 0xbf), records = packed(stored);
    const std::vector<float> matrix = test::floats(decode(stored));
    const Tensor x = gaussian({3, 768}, 5);
    for (const auto& [activations, step] : {std::pair(Activations::f32, 0.0),
                                            {Activations::i16, 0.51 / 5792},
                                            {Activations::i8, 0.51 / 81 + 0.51 / 80}}) {
      const std::vector<float> y = product(records, x, activations);
      size_t zeros_would_pass = 0;
      for (size_t at = 0; at < y.size(); ++at) {
        const auto [exact, bound] = exact_product(&matrix[at % 37 * 768], x.f32() + at / 37 * 768, 768, step);
        ASSERT_NEAR(double{y[at]}, exact, bound) << format->name << " " << at;
        zeros_would_pass += std::fabs(exact) <= bound;
      }
      EXPECT_LT(zeros_would_pass, y.size() / 2) << format->name << ": the bound says nothing";
    }
  }
}

TEST(GgmlRecords, TakeTheMemoryThatIsPlanned) {
  ResidentSizes sizes;
  for (const Format* format : packed_formats()) {
    for (const Shape& shape : {Shape{64, 512}, Shape{16, 256}, Shape{37, 512}, Shape{2, 512}}) {
      uint64_t bytes = 0;
      for (const auto& [name, part] : packed(random_blocks(*format, shape, 0xbf)).parts) bytes += part.bytes();
      EXPECT_EQ(sizes.bytes(*format, {}, shape), bytes) << format->name;
    }
  }
}

TEST(GgmlRecords, DoNotDependOnTheThreadCount) {
  for (const Format* format : packed_formats()) {
    const QuantizedTensor stored = random_blocks(*format, {65, 512}, 0xbf);
    const Tensor x = gaussian({2, 512}, 6);
    for (const Activations activations : kActivations) {
      std::vector<std::vector<float>> results;
      for (const int threads : {1, 2, 3}) {
        set_thread_count(threads);
        results.push_back(product(packed(stored), x, activations));
      }
      set_thread_count(0);
      EXPECT_EQ(results[0], results[1]) << format->name;
      EXPECT_EQ(results[0], results[2]) << format->name;
    }
  }
}

TEST(GgmlRecords, RowsThatFillNoRecordAreComputedAsStored) {
  for (const Format* format : packed_formats()) {
    if (format->block != 32) continue;
    const QuantizedTensor w = packed(random_blocks(*format, {5, 96}, 0xbf));
    EXPECT_FALSE(w.has("records")) << format->name;
    const std::vector<float> matrix = test::floats(decode(w));
    const Tensor x = gaussian({2, 96}, 7);
    const std::vector<float> y = product(w, x, Activations::i16);
    for (size_t at = 0; at < y.size(); ++at) {
      double exact = 0, magnitude = 0;
      for (size_t i = 0; i < 96; ++i) {
        exact += double{matrix[at % 5 * 96 + i]} * x.f32()[at / 5 * 96 + i];
        magnitude += std::fabs(double{matrix[at % 5 * 96 + i]} * x.f32()[at / 5 * 96 + i]);
      }
      EXPECT_NEAR(double{y[at]}, exact, 100 * 0x1p-24 * magnitude) << format->name;
    }
  }
}

TEST(GgmlRecords, ScalesThatAreNotFiniteReachTheirRowOnly) {
  for (const Format* format : packed_formats()) {
    QuantizedTensor stored = random_blocks(*format, {20, 256}, 0xbf);
    const int64_t row_bytes = stored.part("data").cols();
    std::fill_n(stored.parts["data"].data<uint8_t>() + 18 * row_bytes, row_bytes, uint8_t{0xff});
    const bool finite = format->name == "mxfp4";  // its scales are powers of two, up to 2^127
    for (const Activations activations : kActivations) {
      const std::vector<float> y = product(packed(stored), gaussian({2, 256}, 8), activations);
      for (size_t at = 0; at < y.size(); ++at) {
        if (at % 20 == 18 && finite) continue;
        EXPECT_EQ(std::isfinite(y[at]), at % 20 != 18) << format->name << " " << at;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
