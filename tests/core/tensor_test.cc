#include "core/tensor.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "core/error.h"
#include "support/files.h"

namespace nibble {
namespace {

TEST(Buffer, IsZeroAndAlignedInEverySize) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{5000}, (size_t{4} << 20) - 1, size_t{4} << 20,
                             (size_t{8} << 20) + 3}) {
    const auto buffer = Buffer::allocate(bytes);
    EXPECT_EQ(buffer->size(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    const auto span = buffer->span();
    EXPECT_TRUE(std::all_of(span.begin(), span.end(), [](std::byte b) { return b == std::byte{0}; })) << bytes;
    std::fill(span.begin(), span.end(), std::byte{1});
  }
}

// Small blocks for what stays share a mapping, and each lives as long as it is held.
TEST(Buffer, LastingBlocksAreApartAlignedAndZero) {
  constexpr size_t kSizes[] = {1,       (16 << 10) - 1,     16 << 10,      (16 << 10) + 1,
                               300'000, Buffer::kLarge - 1, Buffer::kLarge};
  for (int round = 0; round < 3; ++round) {
    std::vector<std::shared_ptr<Buffer>> held;
    for (int copy = 0; copy < 12; ++copy) {  // more than one mapping takes
      for (const size_t bytes : kSizes) {
        held.push_back(Buffer::allocate_lasting(bytes));
        const auto all = held.back()->span();
        ASSERT_EQ(all.size(), bytes);
        ASSERT_EQ(reinterpret_cast<uintptr_t>(all.data()) % 64, 0u);
        ASSERT_TRUE(std::all_of(all.begin(), all.end(), [](std::byte b) { return b == std::byte{0}; })) << bytes;
        std::fill(all.begin(), all.end(), static_cast<std::byte>(held.size()));
      }
    }
    for (size_t i = 0; i < held.size(); i += 2) held[i].reset();
    for (size_t i = 1; i < held.size(); i += 2) {
      const auto all = held[i]->span();
      const auto mine = static_cast<std::byte>(i + 1);
      ASSERT_TRUE(std::all_of(all.begin(), all.end(), [&](std::byte b) { return b == mine; })) << i;
    }
  }
}

// Large blocks that were freed are handed out again.
TEST(Buffer, IsZeroWhereItWasUsedBefore) {
  for (const size_t bytes : {size_t{1} << 20, (size_t{5} << 20) + 3}) {
    for (int round = 0; round < 3; ++round) {
      const auto buffer = Buffer::allocate(bytes);
      const auto all = buffer->span();
      EXPECT_TRUE(std::all_of(all.begin(), all.end(), [](std::byte b) { return b == std::byte{0}; })) << bytes;
      std::fill(all.begin(), all.end(), std::byte{0xff});
    }
  }
}

// What a large block has given back of its memory comes again, as zeros where zeros are asked for.
TEST(Buffer, IsWholeAgainWhereItsEndWasGivenBack) {
  constexpr size_t kLargest = size_t{48} << 20;
  for (const bool zeroed : {true, false}) {
    std::memset(Buffer::allocate_uninitialized(kLargest)->data(), 0x55, kLargest);
    {
      std::vector<std::shared_ptr<Buffer>> held;  // of sizes that nothing kept has
      for (size_t i = 1; i < 6; ++i) held.push_back(Buffer::allocate_uninitialized((size_t{3} << 20) + i * 8192));
    }
    const auto again = zeroed ? Buffer::allocate(kLargest) : Buffer::allocate_uninitialized(kLargest);
    const bool is_zero =
        std::all_of(again->data(), again->data() + kLargest, [](std::byte b) { return b == std::byte{0}; });
    EXPECT_TRUE(is_zero || !zeroed);
    std::memset(again->data(), 0x33, kLargest);
    EXPECT_EQ(again->data()[kLargest - 1], std::byte{0x33});
  }
}

TEST(Buffer, SmallBlocksOfOneSizeAreApartAndMayEndInAnotherThread) {
  std::vector<std::shared_ptr<Buffer>> held;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 100; ++i) {
      held.push_back(Buffer::allocate(2304));
      ASSERT_EQ(held.back()->data()[2303], std::byte{0});
      std::memset(held.back()->data(), i + 1, 2304);
    }
    for (size_t i = 0; i < held.size(); ++i) ASSERT_EQ(held[i]->data()[0], static_cast<std::byte>(i + 1));
    std::thread([&] { held.clear(); }).join();
  }
}

TEST(Buffer, ImpossibleSizesAreErrors) {
  test::expect_error(ErrorCode::resources, "out of memory", [] { Buffer::allocate(size_t{1} << 60); });
  EXPECT_THROW(Buffer::allocate(SIZE_MAX - 5), Error);
}

TEST(Tensor, KnowsItsSizes) {
  const Tensor t(DType::f16, {3, 4, 5});
  EXPECT_EQ(t.count(), 60);
  EXPECT_EQ(t.bytes(), 120u);
  EXPECT_EQ(t.rows(), 3);
  EXPECT_EQ(t.cols(), 20);
  EXPECT_EQ(Tensor(DType::f32, {0, 7}).cols(), 0);
  EXPECT_EQ(shape_text(t.shape), "[3, 4, 5]");
}

TEST(Tensor, ShapesThatOverflowOrAreNegativeAreErrors) {
  test::expect_error(ErrorCode::format, "overflows", [] { element_count({int64_t{1} << 40, int64_t{1} << 40}); });
  test::expect_error(ErrorCode::format, "out of range", [] { element_count({int64_t{1} << 62, 2}); });
  test::expect_error(ErrorCode::format, "negative", [] { element_count({2, -1}); });
  EXPECT_THROW(Tensor(DType::f64, {int64_t{1} << 61}), Error);
}

TEST(Tensor, RowSlicesShareMemory) {
  Tensor t = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2});
  Tensor middle = t.slice_rows(1, 2);
  EXPECT_EQ(middle.shape, (Shape{1, 2}));
  EXPECT_EQ(middle.f32()[1], 4.0f);
  middle.f32()[1] = 9.0f;
  EXPECT_EQ(t.f32()[3], 9.0f);
  EXPECT_EQ(t.reshaped({2, 3}).f32()[3], 9.0f);
  test::expect_error(ErrorCode::internal, "reshape", [&] { t.reshaped({4}); });
  test::expect_error(ErrorCode::internal, "wrong number", [] { Tensor::from(std::vector<float>{1}, {2}); });
}

TEST(Tensor, CastsBetweenFloatTypes) {
  const Tensor t = Tensor::from(std::vector<float>{0.1f, -2.0f, 65504.0f});
  EXPECT_EQ(t.cast(DType::f32).buffer, t.buffer);
  const Tensor half = t.cast(DType::f16).cast(DType::f32);
  EXPECT_EQ(half.f32()[0], round_to_f16(0.1f));
  EXPECT_EQ(t.cast(DType::f16).cast(DType::bf16).cast(DType::f32).f32()[2], 65536.0f);
}

}  // namespace
}  // namespace nibble
