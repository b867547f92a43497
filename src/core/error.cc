#include "core/error.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace nibble {
namespace {

constexpr size_t kMaxMessageBytes = 4096;

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::internal: return "internal";
    case ErrorCode::invalid_argument: return "invalid_argument";
    case ErrorCode::io: return "io";
    case ErrorCode::format: return "format";
    case ErrorCode::unsupported: return "unsupported";
    case ErrorCode::resources: return "resources";
    case ErrorCode::exists: return "exists";
    case ErrorCode::interrupted: return "interrupted";
  }
  return "internal";
}

Error::Error(ErrorCode code, const std::string& message)
    : std::runtime_error(printable(message, kMaxMessageBytes)), code_(code) {}

void fail(ErrorCode code, const std::string& message) { throw Error(code, message); }

std::string printable(std::string_view text, size_t limit) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(std::min(text.size(), limit));
  for (const char c : text) {
    if (out.size() >= limit) return out.substr(0, limit - 3) + "...";
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  return out;
}

std::string nearest_name(std::string_view name, const std::string* known, size_t count) {
  const std::string* best = nullptr;
  size_t best_distance = std::max<size_t>(2, name.size() / 2) + 1;
  for (size_t i = 0; i < count; ++i) {
    const size_t distance = edit_distance(name, known[i]);
    if (distance < best_distance) {
      best_distance = distance;
      best = &known[i];
    }
  }
  return best ? *best : std::string();
}

}  // namespace nibble
