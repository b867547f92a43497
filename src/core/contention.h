#pragma once
#include <algorithm>
#include <chrono>

namespace nibble {

/// Notices when others want the processors. A thread that was put aside within a piece lets all wait for the rest of a
/// time slice, milliseconds where products take a tenth of one; one that is woken again and again, always too late,
/// takes its time from the caller. Several threads are slower than one then. After either nothing is shared for a
/// pause, longer each time that the next follows soon.
class Contention {
 public:
  using Clock = std::chrono::steady_clock;

  bool is_paused(Clock::time_point now) const { return now < until_; }

  /// The caller has worked since start, and waited since idle, in a job in which each thread has several pieces.
  void waited(Clock::time_point start, Clock::time_point idle, Clock::time_point now) {
    const auto wait = now - idle;
    if (wait >= kLong && wait >= (idle - start) / 2) pause_from(now);  // half: a piece is a quarter of a thread's work
  }

  /// The caller has done alone since start what was to be shared.
  void missed(Clock::time_point start, Clock::time_point now) {
    if (now - start >= kWakes) pause_from(now);
  }

 private:
  void pause_from(Clock::time_point now) {
    const bool soon = now - until_ < std::max(pause_, kSoon);
    pause_ = soon ? std::min(2 * pause_, kLongest) : std::max(pause_ / 2, kShortest);
    until_ = now + pause_;
  }

  static constexpr Clock::duration kLong = std::chrono::microseconds(500), kSoon = std::chrono::milliseconds(20);
  static constexpr Clock::duration kWakes = std::chrono::milliseconds(1);  // what a worker takes at most to wake
  static constexpr Clock::duration kShortest = std::chrono::milliseconds(2), kLongest = std::chrono::milliseconds(256);

  Clock::time_point until_{};
  Clock::duration pause_ = kShortest;
};

}  // namespace nibble
