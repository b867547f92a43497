#include "kernels/every_isa.h"

namespace nibble {
namespace {

class TransposeKernel : public EveryIsa {};
NIBBLE_EVERY_ISA(TransposeKernel);

constexpr int64_t kPadding = 3;

TEST_P(TransposeKernel, MovesEveryValueAndNothingElse) {
  for (const int64_t rows : {0, 1, 7, 8, 9, 16, 23, 64}) {
    for (const int64_t cols : {0, 1, 7, 8, 9, 31, 40, 65}) {
      const int64_t ldx = cols + kPadding, ldy = rows + kPadding;
      Guarded<float> x = gaussian(std::max<int64_t>(rows * ldx, 1), 1), y(std::max<int64_t>(cols * ldy, 1));
      table().transpose({.x = x.data(), .y = y.data(), .rows = rows, .cols = cols, .ldx = ldx, .ldy = ldy});
      ASSERT_TRUE(y.guards_intact());
      for (int64_t c = 0; c < cols; ++c) {
        for (int64_t r = 0; r < rows; ++r) ASSERT_EQ(y[c * ldy + r], x[r * ldx + c]) << rows << " x " << cols;
        for (int64_t r = rows; r < ldy; ++r) ASSERT_EQ(y[c * ldy + r], 77.0f) << rows << " x " << cols;
      }
    }
  }
}

}  // namespace
}  // namespace nibble
