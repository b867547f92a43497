#pragma once
// Long work looks at the interrupt flag between tensors, chunks and tokens.
#include "nibble/progress.h"

namespace nibble {

bool interrupt_requested() noexcept;

/// @throws Error{interrupted} once request_interrupt() was called.
void check_interrupt();

}  // namespace nibble
