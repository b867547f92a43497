#include "core/contention.h"

#include <gtest/gtest.h>

namespace nibble {
namespace {

using namespace std::chrono_literals;
using Clock = Contention::Clock;

constexpr Clock::time_point kStart = Clock::time_point(1h);

TEST(Contention, PausesAfterAWaitThatIsLongerThanAPieceCanTake) {
  Contention contention;
  EXPECT_FALSE(contention.is_paused(kStart));
  contention.waited(kStart, kStart + 100us, kStart + 500us);  // 0.4 ms: a wake-up
  EXPECT_FALSE(contention.is_paused(kStart + 500us));
  contention.waited(kStart, kStart + 10ms, kStart + 14ms);  // less than half of the work: a large piece
  EXPECT_FALSE(contention.is_paused(kStart + 14ms));
  contention.waited(kStart, kStart + 100us, kStart + 3ms);
  EXPECT_TRUE(contention.is_paused(kStart + 3ms));
  EXPECT_TRUE(contention.is_paused(kStart + 4999us));
  EXPECT_FALSE(contention.is_paused(kStart + 5ms));
}

TEST(Contention, PausesAfterSharedWorkThatNobodyJoined) {
  Contention contention;
  contention.missed(kStart, kStart + 900us);  // a worker may take as long to wake
  EXPECT_FALSE(contention.is_paused(kStart + 900us));
  contention.missed(kStart, kStart + 1ms);
  EXPECT_TRUE(contention.is_paused(kStart + 1ms));
}

/// How long the pause is that a wait until `now` begins.
Clock::duration pause_from(Contention& contention, Clock::time_point now) {
  contention.waited(now - 3ms, now - 2ms, now);
  Clock::duration pause = 0ms;
  while (contention.is_paused(now + pause)) pause += 1ms;
  return pause;
}

TEST(Contention, PausesGrowWhileWaitsFollowSoonAndShrinkAgain) {
  Contention contention;
  Clock::time_point now = kStart;
  EXPECT_EQ(pause_from(contention, now), 2ms);  // one alone is no contention
  Clock::duration last = 2ms;
  for (const auto expected : {4ms, 8ms, 16ms, 32ms, 64ms, 128ms, 256ms, 256ms}) {
    now += last + 2ms;
    last = pause_from(contention, now);
    EXPECT_EQ(last, expected);
  }
  for (const auto expected : {128ms, 64ms, 32ms, 16ms, 8ms, 4ms, 2ms, 2ms}) {
    now += 1s;
    EXPECT_EQ(pause_from(contention, now), expected);
  }
}

}  // namespace
}  // namespace nibble
