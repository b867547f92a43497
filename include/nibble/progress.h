#pragma once
#include <cstdint>
#include <functional>

namespace nibble {

/// Asks the running task to stop at its next safe point; it then throws Error{interrupted} and leaves no output.
/// Async-signal-safe.
void request_interrupt() noexcept;

/// Forgets an earlier request.
void clear_interrupt() noexcept;

/// What a long task tells about itself.
struct Progress {
  const char* unit = "";  ///< what is counted: "tensors", "tokens"
  int64_t done = 0;
  int64_t total = 0;
  double bytes = 0;  ///< processed so far; 0 where that means nothing
};

/// Called often, on the thread that called the task; the callee decides what to show.
using ProgressFn = std::function<void(const Progress&)>;

}  // namespace nibble
