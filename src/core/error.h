#pragma once
// Throwing one-line errors. Messages are cut at 4 KB and control bytes are escaped, because parts of them come from
// untrusted files (names of tensors, keys of JSON objects).
#include <string>
#include <string_view>

#include "nibble/error.h"

namespace nibble {

/// Throws Error(code, message).
[[noreturn]] void fail(ErrorCode code, const std::string& message);

/// The text with control bytes escaped and everything after `limit` bytes cut.
std::string printable(std::string_view text, size_t limit = 4096);

/// The entry of `known` that was probably meant by `name`, or "" when nothing is close: the one that begins so, else
/// one with few letters wrong, else one that `name` begins with or is a word of. Case, leading dashes, and the
/// difference between - and _ do not count.
std::string nearest_name(std::string_view name, const std::string* known, size_t count);

template <class Container>
std::string nearest_name(std::string_view name, const Container& known) {
  return nearest_name(name, std::data(known), std::size(known));
}

}  // namespace nibble
