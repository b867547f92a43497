#include "tasks/data_file.h"

#include "core/error.h"

namespace nibble {
std::string at_line(const std::string& path, int64_t line) { return path + ":" + std::to_string(line); }

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

const std::string& text_of(const Json& object, const char* key, const std::string& where) {
  const Json* value = object.find_value(key);
  if (value == nullptr) fail(ErrorCode::format, where + ": " + key + ": is missing");
  return value->as_string(where + ": " + key);
}

}  // namespace nibble
