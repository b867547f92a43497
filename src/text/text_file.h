#pragma once
// Text that users give in files.
#include <cstdint>
#include <filesystem>
#include <string>

namespace nibble {

/// The whole file, without the byte order mark that some editors write first.
/// @throws Error{format} when it is larger than max_bytes or not UTF-8; the message has FILE:LINE
/// and the first byte that is wrong.
std::string read_utf8_file(const std::filesystem::path& path, uint64_t max_bytes);

}  // namespace nibble
