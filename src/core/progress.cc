#include "core/progress.h"

#include <atomic>

#include "core/error.h"

namespace nibble {
namespace {

std::atomic<bool> interrupted{false};
thread_local int holds = 0;
static_assert(std::atomic<bool>::is_always_lock_free, "needed in a signal handler");

}  // namespace

void request_interrupt() noexcept { interrupted.store(true, std::memory_order_relaxed); }
void clear_interrupt() noexcept { interrupted.store(false, std::memory_order_relaxed); }
bool interrupt_requested() noexcept { return interrupted.load(std::memory_order_relaxed); }

HoldInterrupts::HoldInterrupts() noexcept { ++holds; }
HoldInterrupts::~HoldInterrupts() { --holds; }

void check_interrupt() {
  if (holds == 0 && interrupt_requested()) fail(ErrorCode::interrupted, "interrupted; nothing was written");
}

}  // namespace nibble
