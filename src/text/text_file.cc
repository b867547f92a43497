#include "text/text_file.h"

#include "core/error.h"
#include "core/file.h"
#include "text/unicode.h"

namespace nibble {

std::string read_utf8_file(const std::filesystem::path& path, uint64_t max_bytes) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  std::string text = read_text_file(path, max_bytes);
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.kind != Utf8Step::Kind::character) {
      fail(ErrorCode::format, path.string() + ": is not UTF-8 at byte " + std::to_string(at));
    }
    at += step.length;
  }
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  return text;
}

}  // namespace nibble
