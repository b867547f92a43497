// The block decoders against the values that gguf-py gives for the same blocks: all bits equal.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>

#include "io/safetensors.h"
#include "quant/formats/ggml.h"
#include "support/files.h"

namespace nibble {
namespace {

using test::shared_folder;

std::string upper(std::string_view name) {
  std::string text(name);
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

QuantizedTensor matrix_of_blocks(const Format& format, const Tensor& blocks, int64_t rows) {
  QuantizedTensor w = {
      .format = &format, .shape = {rows, blocks.rows() / rows * format.block}, .block = format.block, .parts = {}};
  w.parts["data"] = blocks.reshaped({rows, blocks.count() / rows});
  return w;
}

TEST(Ggml, EveryTypeDecodesToTheReferenceValues) {
  NIBBLE_NEED_SHARED("goldens/gguf/blocks.safetensors");
  const SafetensorsFile file(shared_folder() / "goldens/gguf/blocks.safetensors");
  for (const Format& format : ggml_formats()) {
    const Tensor blocks = file.load(upper(format.name) + ".blocks");
    const Tensor values = file.load(upper(format.name) + ".values");
    const QuantizedTensor w = matrix_of_blocks(format, blocks, 1);
    ASSERT_EQ(w.cols(), values.count()) << format.name;
    Tensor decoded(DType::f32, {values.count()});
    format.decode_rows(w, 0, 1, decoded.f32());
    for (int64_t i = 0; i < values.count(); ++i) {
      ASSERT_EQ(decoded.f32()[i], values.f32()[i]) << format.name << " value " << i;
    }
  }
}

TEST(Ggml, DecodesRowRanges) {
  NIBBLE_NEED_SHARED("goldens/gguf/blocks.safetensors");
  const SafetensorsFile file(shared_folder() / "goldens/gguf/blocks.safetensors");
  for (const Format& format : ggml_formats()) {
    const QuantizedTensor w = matrix_of_blocks(format, file.load(upper(format.name) + ".blocks"), 4);
    const Tensor values = file.load(upper(format.name) + ".values");
    std::vector<float> rows(static_cast<size_t>(2 * w.cols()));
    format.decode_rows(w, 1, 3, rows.data());
    EXPECT_TRUE(std::equal(rows.begin(), rows.end(), values.f32() + w.cols())) << format.name;
  }
}

TEST(Ggml, Q4_0HoldsValueJAndJPlus16InByteJ) {
  std::vector<uint8_t> block = {0x00, 0x3c};  // f16 1.0
  for (uint8_t j = 0; j < 16; ++j) block.push_back(static_cast<uint8_t>(j | ((15 - j) << 4)));
  const QuantizedTensor w =
      matrix_of_blocks(find_format("q4_0"), Tensor::from(std::span<const uint8_t>(block), {1, 18}), 1);
  std::vector<float> out(32);
  w.format->decode_rows(w, 0, 1, out.data());
  for (int j = 0; j < 16; ++j) {
    EXPECT_EQ(out[static_cast<size_t>(j)], static_cast<float>(j - 8));
    EXPECT_EQ(out[static_cast<size_t>(j + 16)], static_cast<float>(7 - j));
  }
}

TEST(Ggml, StoredBytesAreThoseOfTheBlocks) {
  struct Row {
    const char* name;
    uint64_t bytes;  // of a [3, 256] matrix
  };
  for (const Row& row : std::vector<Row>{{"q4_0", 3 * 8 * 18},
                                         {"q8_0", 3 * 8 * 34},
                                         {"q2_k", 3 * 84},
                                         {"q6_k", 3 * 210},
                                         {"iq4_xs", 3 * 136},
                                         {"mxfp4", 3 * 8 * 17},
                                         {"nvfp4", 3 * 4 * 36}}) {
    const Format& format = find_format(row.name);
    EXPECT_EQ(format.layout({3, 256}, {}).parts.at("data").bytes(), row.bytes) << row.name;
    EXPECT_DOUBLE_EQ(format.bits_per_weight, 8.0 * static_cast<double>(row.bytes) / 768) << row.name;
  }
}

TEST(Ggml, FormatsAreReadOnlyRowsOfTheTable) {
  EXPECT_EQ(ggml_formats().size(), 14u);
  for (const Format& format : ggml_formats()) {
    EXPECT_NE(find_format_or_null(format.name), nullptr) << format.name;
    EXPECT_EQ(format.encode, nullptr) << format.name;
  }
}

}  // namespace
}  // namespace nibble
