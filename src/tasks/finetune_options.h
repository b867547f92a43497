#pragma once
#include "nibble/finetune.h"

namespace nibble {

/// What can be said before a model is loaded. @throws Error{invalid_argument} naming the option.
void check_finetune_options(const FinetuneOptions& options);

}  // namespace nibble
