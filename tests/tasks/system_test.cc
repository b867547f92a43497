// What the machine offers.
#include "nibble/system.h"

#include <gtest/gtest.h>

#include "core/progress.h"
#include "support/files.h"

namespace nibble {
namespace {

TEST(System, MeasuringMemoryCanBeInterrupted) {
  EXPECT_GT(system_info(MeasureBandwidth::yes).dram_bytes_per_second, 0);
  request_interrupt();
  test::expect_error(ErrorCode::interrupted, "interrupted", [] { system_info(MeasureBandwidth::yes); });
  clear_interrupt();
}

}  // namespace
}  // namespace nibble
