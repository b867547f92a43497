#include "tasks/data_file.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/file.h"
#include "core/limits.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

void require_utf8(std::string_view text, const std::string& path) {
  if (is_valid_utf8(text)) return;
  int64_t line = 1;
  size_t line_begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.kind != Utf8Step::Kind::character) {
      fail(ErrorCode::format,
           fmt::format("{}: byte {} of the line, 0x{:02x}, is not UTF-8; convert the file with iconv",
                       at_line(path, line), at - line_begin + 1, static_cast<uint8_t>(text[at])));
    }
    at += step.length;
    if (step.value == U'\n') {
      ++line;
      line_begin = at;
    }
  }
}

}  // namespace

std::string read_data_file(const std::string& path) {
  std::string text = read_text_file(path, limits::kMaxJsonBytes);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  require_utf8(text, path);
  return text;
}

std::string at_line(const std::string& path, int64_t line) { return path + ":" + std::to_string(line); }

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

const std::string& text_of(const Json& object, const char* key, const std::string& where) {
  const Json* value = object.find_value(key);
  if (value == nullptr) fail(ErrorCode::format, where + ": " + key + ": is missing");
  return value->as_string(where + ": " + key);
}

}  // namespace nibble
