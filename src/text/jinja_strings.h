#pragma once
// Python's string operations on UTF-8. Lengths and positions count code points.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nibble::jinja {

int64_t code_point_count(std::string_view text);
std::vector<std::string_view> code_points(std::string_view text);

bool is_space(char32_t code_point);  // as str.isspace()

enum class Side { left, right, both };
/// Without the white space, or the code points of `characters`, at its ends.
std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> characters = std::nullopt);

/// Pieces between runs of white space, or between separators; at most `limit` cuts where that is not negative, made
/// from the left, or from the right (Side::right). An empty separator is the caller's error.
std::vector<std::string_view> split(std::string_view text, std::optional<std::string_view> separator, int64_t limit,
                                    Side from);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends = false);

/// Where `needle` stands in `text` from `start` on, or npos; in linear time, unlike std::string_view::find.
size_t find_text(std::string_view text, std::string_view needle, size_t start = 0);
int64_t count(std::string_view text, std::string_view needle);
/// At most `limit` occurrences where that is not negative. The caller has checked that the result has a bearable size.
std::string replace(std::string_view text, std::string_view old, std::string_view fresh, int64_t limit);

/// The first code point in upper case, the others in lower case.
std::string capitalize(std::string_view text);

/// Whether there are letters with case, and all are in that case.
bool is_upper(std::string_view text);
bool is_lower(std::string_view text);

/// The text with & < > " ' as HTML writes them.
std::string escape(std::string_view text);
/// The text as Python's repr() quotes it.
std::string quoted(std::string_view text);

}  // namespace nibble::jinja
