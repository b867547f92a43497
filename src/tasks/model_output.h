#pragma once
// The folder that a model or an adapter is written to, and what it may take the place of.
#include <filesystem>
#include <string>
#include <vector>

#include "core/output.h"

namespace nibble {

/// @throws Error{invalid_argument} when `out` is, or holds, one of `inputs`.
void protect_inputs(const std::filesystem::path& out, const std::vector<std::filesystem::path>& inputs);

/// What overwriting must leave alone.
/// @throws as protect_inputs(), for the working folder too; Error{exists} when `out` is a file, or a folder with others
/// in it but without weights, checkpoints or a training log.
void check_replaced(const std::filesystem::path& out, const std::vector<std::filesystem::path>& inputs);

/// The folder to write. @throws as check_replaced() and OutputFolder.
OutputFolder model_output(const std::string& out, Overwrite overwrite,
                          const std::vector<std::filesystem::path>& inputs);

}  // namespace nibble
