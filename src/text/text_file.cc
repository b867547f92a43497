#include "text/text_file.h"

#include "core/error.h"
#include "core/file.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

void require_utf8(std::string_view text, const std::string& path) {
  int64_t line = 1;
  size_t line_begin = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.kind != Utf8Step::Kind::character) {
      fail(ErrorCode::format, path + ":" + std::to_string(line) + ": byte " + std::to_string(at - line_begin + 1) +
                                  " of the line is not UTF-8; convert the file with iconv");
    }
    at += step.length;
    if (step.value != U'\n') continue;
    ++line;
    line_begin = at;
  }
}

}  // namespace

std::string read_utf8_file(const std::filesystem::path& path, uint64_t max_bytes) {
  std::string text = read_text_file(path, max_bytes);
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  require_utf8(text, path.string());
  return text;
}

}  // namespace nibble
