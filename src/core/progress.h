#pragma once
// Long work looks at the interrupt flag between tensors, chunks and tokens.
#include "nibble/progress.h"

namespace nibble {

bool interrupt_requested() noexcept;

/// @throws Error{interrupted} once request_interrupt() was called.
void check_interrupt();

/// While one lives, check_interrupt() of this thread lets work go on: what it saves must not be lost.
class HoldInterrupts {
 public:
  HoldInterrupts() noexcept;
  ~HoldInterrupts();
  HoldInterrupts(const HoldInterrupts&) = delete;
  HoldInterrupts& operator=(const HoldInterrupts&) = delete;
};

}  // namespace nibble
