#pragma once
// The training data of a classifier: tables of labelled texts, or lines of token ids with a label.
#include <functional>
#include <memory>
#include <string>

#include "tasks/finetune_data.h"

namespace nibble {

/// Calls add(sample) for each text of the file, in order. @returns how many were longer than max_length and are cut
/// @throws Error{format} naming file and line
int64_t read_classified(const std::shared_ptr<LoadedModel>& model, const std::string& path, int64_t max_length,
                        const std::function<void(TrainingSample)>& add);

}  // namespace nibble
