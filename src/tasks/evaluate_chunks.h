#pragma once
// How a text is cut for evaluation, and which ids of a piece are scored.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "nibble/evaluate.h"

namespace nibble {

using Chunks = std::vector<std::vector<int32_t>>;

/// The place of the first scored id in chunk `index` of `size` ids; `size` when none is.
int64_t first_scored(size_t index, size_t size, const EvaluateOptions& options);

/// "chunks", "stride 256", "second half".
std::string convention_name(const EvaluateOptions& options);

/// @throws Error{invalid_argument} for a context, stride or part that cannot be.
void check_cut(const EvaluateOptions& options);

/// FNV-1a over the ids and lengths of all chunks, as 16 hexadecimal digits.
std::string chunks_hash(const Chunks& chunks);

}  // namespace nibble
