// A dithered matrix is one that the quantized matrix could have been made of, and a small change of it survives
// rounding.
#include "quant/dither.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/parallel.h"
#include "support/goldens.h"
#include "support/random.h"

namespace nibble {
namespace {

using test::floats;
using test::gaussian;

constexpr const char* kFormats[] = {"nf4", "fp4", "int4"};

QuantizedTensor quantized(const Tensor& values, const char* format, const EncodeOptions& options) {
  return std::get<QuantizedTensor>(encode(values, find_format(format), options));
}

std::vector<uint8_t> bytes_of(const Tensor& t) { return {t.data<uint8_t>(), t.data<uint8_t>() + t.bytes()}; }

TEST(Dither, TheBaseIsWhatADitheredMatrixRoundsTo) {
  for (const char* format : kFormats) {
    for (const bool double_quant : {false, true}) {
      for (const int64_t block : {32, 64, 256}) {
        for (const Shape& shape : {Shape{48, 256}, Shape{7, 96}, Shape{5, 33}}) {
          Tensor values = gaussian(shape, 1);
          for (int64_t i = 64; i < 128; ++i) values.f32()[i] = 0;  // a block or two of zeros
          const QuantizedTensor w = quantized(values, format, {.block = block, .double_quant = double_quant});
          const Tensor dithers = dithered(w), decoded = decode(w);
          const QuantizedTensor again = quantized(dithers, format, {.block = block});
          const QuantizedTensor expected = quantized(decoded, format, {.block = block});
          const std::string what = std::string(format) + " block " + std::to_string(block) + " " + shape_text(shape);
          EXPECT_EQ(bytes_of(again.part("data")), bytes_of(expected.part("data"))) << what;
          EXPECT_EQ(floats(again.part("absmax")), floats(expected.part("absmax"))) << what;
          EXPECT_EQ(floats(decode(again)), floats(decoded)) << what;
          EXPECT_NE(floats(dithers), floats(decoded)) << what;
        }
      }
    }
  }
}

TEST(Dither, IsTheSamePackedAndForEveryNumberOfThreads) {
  for (const char* format : kFormats) {
    QuantizedTensor w = quantized(gaussian({64, 128}, 2), format, {});
    const std::vector<float> expected = floats(dithered(w));
    for (const int threads : {1, 3}) {
      set_thread_count(threads);
      EXPECT_EQ(floats(dithered(w)), expected) << format;
    }
    set_thread_count(0);
    w.format->pack(w, {}, Residency::memory);
    ASSERT_TRUE(w.has("records"));
    EXPECT_EQ(floats(dithered(w)), expected) << format;
  }
}

// Between levels of equal distance, a value in the middle of its cell is as likely to be pushed over either border, and
// a hundredth of a step moves a hundredth of the values by a whole step. The mean of n such steps has a variance of at
// most step^2 / 100 / n.
TEST(Dither, TheMeanOfASmallChangeSurvives) {
  const QuantizedTensor w = quantized(gaussian({512, 512}, 3), "int4", {});
  const Tensor base = decode(w);
  Tensor changed = dithered(w);
  const auto steps = floats(w.part("absmax"));
  const auto step_of = [&](int64_t i) { return std::fabs(steps[static_cast<size_t>(i / 64)]) / 8; };
  for (int64_t i = 0; i < base.count(); ++i) changed.f32()[i] += step_of(i) / 100;
  const Tensor kept = decode(encode(changed, *w.format, {}));
  double sum = 0, count = 0;
  for (int64_t i = 0; i < base.count(); ++i) {
    if (std::fabs(base.f32()[i]) > 6.5f * step_of(i)) continue;  // the outermost cells are cut off
    sum += (kept.f32()[i] - base.f32()[i]) / step_of(i);
    count += 1;
  }
  EXPECT_NEAR(sum / count, 0.01, 5 * std::sqrt(0.01 / count));
}

TEST(Dither, IsForMergesIntoTheSameFormatAndBlock) {
  const Tensor values = gaussian({4, 64}, 4);
  const Weight nf4 = encode(values, find_format("nf4"), {.block = 128});
  EXPECT_TRUE(can_dither(nf4, find_format("nf4"), {.block = 128}));
  EXPECT_TRUE(can_dither(nf4, find_format("nf4"), {.block = 128, .double_quant = true}));
  EXPECT_FALSE(can_dither(nf4, find_format("nf4"), {}));
  EXPECT_FALSE(can_dither(nf4, find_format("fp4"), {.block = 128}));
  EXPECT_FALSE(can_dither(values, find_format("nf4"), {}));
  EXPECT_FALSE(can_dither(encode(values, find_format("int8"), {}), find_format("int8"), {}));
  EXPECT_TRUE(can_dither(encode(values, find_format("int4"), {}), find_format("int4"), {}));
}

}  // namespace
}  // namespace nibble
