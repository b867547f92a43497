#pragma once
// The options of a run as JSON, by their own names.
#include "core/json.h"
#include "nibble/finetune.h"

namespace nibble {

/// Those that make a run what it is: a run that continues another has the same. "lora" is null without an adapter.
Json settings_of_run(const FinetuneOptions& options);

/// All of them: those and where the data comes from, how long the run goes, what it measures and saves.
Json all_settings(const FinetuneOptions& options);

}  // namespace nibble
