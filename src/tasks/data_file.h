#pragma once
// Files of texts that people write and collect, line by line.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "core/json.h"
#include "core/progress.h"

namespace nibble {

/// "FILE:LINE", as compilers name a place. @param line  from 1
std::string at_line(const std::string& path, int64_t line);

/// Whether a line has white space only.
bool is_blank(std::string_view line);

/// A member of an object, which must be there and a text. @throws Error{format}
const std::string& text_of(const Json& object, const char* key, const std::string& where);

/// fn(line, "FILE:LINE") for every line that is not blank, in order.
template <class Fn>
void for_lines(std::string_view text, const std::string& path, Fn fn) {
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    ++number;
    if (!is_blank(line)) fn(line, at_line(path, number));
    begin = end + 1;
    check_interrupt();
  }
}

}  // namespace nibble
