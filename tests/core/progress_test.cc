#include "core/progress.h"

#include <gtest/gtest.h>

#include "support/files.h"

namespace nibble {
namespace {

TEST(Interrupt, WaitsWhileItIsHeld) {
  request_interrupt();
  {
    const HoldInterrupts outer;
    {
      const HoldInterrupts inner;
      check_interrupt();
    }
    check_interrupt();
    EXPECT_TRUE(interrupt_requested());
  }
  test::expect_error(ErrorCode::interrupted, "interrupted", [] { check_interrupt(); });
  clear_interrupt();
  check_interrupt();
}

}  // namespace
}  // namespace nibble
