// nf4 and fp4 against bitsandbytes' CPU backend: packed codes, scales and decoded values, bit for bit.
#include <gtest/gtest.h>

#include <cstring>

#include "core/dtype.h"
#include "quant/double_quant.h"
#include "quant/format.h"
#include "support/goldens.h"
#include "support/sha256.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr const char* kIndex = "goldens/vectors/bnb4bit.json";

/// The input of a case: values of the pool rounded to the case's dtype.
Tensor input_of(const SafetensorsFile& pool, const Json& c) {
  const Tensor values = pool.load(text_at(c, "pool"));
  const Shape shape = shape_at(c, "shape");
  const int64_t n = element_count(shape), offset = int_at(c, "offset");
  return Tensor::from(std::span(values.f32() + offset, static_cast<size_t>(n)), {1, n})
      .cast(parse_dtype(text_at(c, "dtype")));
}

std::string digest(const Tensor& t) { return sha256({t.raw(), t.bytes()}).substr(0, 16); }

/// FP4's second zero decodes to -0 in bitsandbytes' kernel (rows of even length) and to +0 in its Python path; this
/// gives it the sign that the digest was made with.
void sign_fp4_zeros(const QuantizedTensor& w, bool negative, Tensor& decoded) {
  const auto* packed = w.part("data").data<uint8_t>();
  const float* absmax = w.has("nested_absmax") ? nullptr : w.part("absmax").f32();
  for (int64_t i = 0; i < decoded.count(); ++i) {
    const int code = i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15;
    if (code == 8) decoded.f32()[i] = (negative ? -0.0f : 0.0f) * (absmax ? absmax[i / w.block] : decoded.f32()[i]);
  }
}

class FourBitGolden : public ::testing::Test {
 protected:
  void SetUp() override {
    NIBBLE_NEED_SHARED(kIndex);
    index_ = shared_json(kIndex);
    pool_.emplace(shared_folder() / "goldens/vectors/pool.safetensors");
    data_.emplace(shared_folder() / "goldens/vectors/bnb4bit.safetensors");
  }

  Json index_;
  std::optional<SafetensorsFile> pool_, data_;
};

TEST_F(FourBitGolden, EncodesEveryCaseCodeForCode) {
  for (const auto& [name, c] : index_.as_object(kIndex)) {
    const Weight w =
        encode(input_of(*pool_, c), find_format(text_at(c, "quant_type")), {.block = int_at(c, "blocksize")});
    const auto& q = std::get<QuantizedTensor>(w);
    const Tensor packed = data_->load_bytes(name + ".packed");
    ASSERT_EQ(q.part("data").bytes(), packed.bytes()) << name;
    EXPECT_EQ(std::memcmp(q.part("data").raw(), packed.raw(), packed.bytes()), 0) << name;
    if (!flag_at(c, "nested")) {
      const Tensor absmax = data_->load(name + ".absmax");
      ASSERT_EQ(q.part("absmax").bytes(), absmax.bytes()) << name;
      EXPECT_EQ(std::memcmp(q.part("absmax").raw(), absmax.raw(), absmax.bytes()), 0) << name;
    } else {
      EXPECT_EQ(digest(q.part("absmax")), text_at(*c.find("absmax_before_nesting"), "sha256_16")) << name;
    }
  }
}

TEST_F(FourBitGolden, QuantizesScalesCodeForCodeGivenTheirOffset) {
  int cases = 0;
  for (const auto& [name, c] : index_.as_object(kIndex)) {
    if (!flag_at(c, "nested")) continue;
    const Weight w =
        encode(input_of(*pool_, c), find_format(text_at(c, "quant_type")), {.block = int_at(c, "blocksize")});
    const Tensor absmax = std::get<QuantizedTensor>(w).part("absmax");
    const std::span<const float> scales(absmax.f32(), static_cast<size_t>(absmax.count()));
    const Json* stored_offset = c.find("nested_offset");
    if (!stored_offset->is_number()) continue;  // NaN or infinite scales have no mean
    const auto offset = static_cast<float>(stored_offset->as_double(name));
    if (!std::isfinite(offset)) continue;
    // The mean's last bits depend on the summation order: at most count * 2^-24 of the largest scale.
    const float largest = *std::max_element(scales.begin(), scales.end());
    EXPECT_LE(std::abs(mean_of(scales) - offset), largest * 0x1p-24f * static_cast<float>(scales.size() + 1)) << name;
    const NestedScales nested = quantize_nested(scales, offset);
    const Tensor codes = data_->load(name + ".absmax"), outer = data_->load(name + ".nested_absmax");
    ASSERT_EQ(nested.codes.bytes(), codes.bytes()) << name;
    EXPECT_EQ(std::memcmp(nested.codes.raw(), codes.raw(), codes.bytes()), 0) << name;
    EXPECT_EQ(std::memcmp(nested.nested_absmax.raw(), outer.raw(), outer.bytes()), 0) << name;
    ++cases;
  }
  EXPECT_GT(cases, 50);
}

TEST_F(FourBitGolden, DecodesEveryCaseBitForBit) {
  for (const auto& [name, c] : index_.as_object(kIndex)) {
    Weight w = encode(input_of(*pool_, c), find_format(text_at(c, "quant_type")), {.block = int_at(c, "blocksize")});
    auto& q = std::get<QuantizedTensor>(w);
    if (flag_at(c, "nested")) {
      if (!c.find("nested_offset")->is_number()) continue;
      const auto offset = static_cast<float>(c.find("nested_offset")->as_double(name));
      q.double_quant = true;
      q.parts["absmax"] = data_->load(name + ".absmax");
      q.parts["nested_absmax"] = data_->load(name + ".nested_absmax");
      q.parts["nested_quant_map"] = Tensor::from(std::span(signed_dynamic_map()));
      q.parts["nested_offset"] = Tensor::from(std::span(&offset, 1));
    }
    Tensor decoded = decode(w);
    if (text_at(c, "quant_type") == "fp4") {
      q.format->pack(q, {.compute_dtype = DType::bf16}, Residency::memory);  // decodes the scales
      if (q.has("scales")) q.parts["absmax"] = q.part("scales"), q.parts.erase("nested_absmax");
      sign_fp4_zeros(q, shape_at(c, "shape").back() % 2 == 0, decoded);
    }
    EXPECT_EQ(digest(decoded), text_at(*c.find("dequantized_float32"), "sha256_16")) << name;
    const Tensor rounded = decoded.cast(parse_dtype(text_at(c, "dtype")));
    EXPECT_EQ(digest(rounded), text_at(*c.find("dequantized"), "sha256_16")) << name;
  }
}

}  // namespace
}  // namespace nibble
