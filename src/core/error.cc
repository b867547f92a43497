#include "core/error.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
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

constexpr size_t kFewestLetters = 3;  // below, every name is near to every other

/// A name as far as it counts: "--LoRA_r" is "lora-r".
struct Spelling {
  std::string letters;
  bool is_short;  // an option such as -n, which is near to nothing
};

Spelling spelled(std::string_view name) {
  const size_t dashes = std::min(name.find_first_not_of('-'), name.size());
  Spelling out = {std::string(name.substr(dashes)), dashes == 1};
  for (char& c : out.letters) c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

struct Candidate {
  const std::string* name;
  std::string letters;
};
using Candidates = std::vector<Candidate>;

/// Null when none or several (of different names) fit: then it is a guess which was meant.
template <class Fits>
const std::string* only_one(const Candidates& candidates, const Fits& fits) {
  const std::string* found = nullptr;
  for (const Candidate& c : candidates) {
    if (!fits(c.letters)) continue;
    if (found != nullptr && *found != *c.name) return nullptr;
    found = c.name;
  }
  return found;
}

const std::string* the_one_that_begins_so(const std::string& wanted, const Candidates& candidates) {
  if (wanted.size() < kFewestLetters) return nullptr;
  return only_one(candidates, [&](const std::string& other) { return other.starts_with(wanted); });
}

/// By edit distance. A third of the letters may be wrong; the first, which is seldom mistyped, counts twice when right.
const std::string* the_least_misspelled(const std::string& wanted, const Candidates& candidates) {
  const std::string* best = nullptr;
  size_t best_distance = SIZE_MAX;
  for (const Candidate& c : candidates) {
    const size_t letters = wanted.size() + (wanted[0] == c.letters[0] ? 1 : 0);
    const size_t distance = edit_distance(wanted, c.letters);
    if (wanted.size() < kFewestLetters || distance > letters / 3 || distance >= best_distance) continue;
    best_distance = distance;
    best = c.name;
  }
  return best;
}

/// "--output" for "--out".
const std::string* the_longest_beginning(const std::string& wanted, const Candidates& candidates) {
  const Candidate* best = nullptr;
  for (const Candidate& c : candidates) {
    if (c.letters.size() < kFewestLetters || !wanted.starts_with(c.letters)) continue;
    if (best == nullptr || c.letters.size() > best->letters.size()) best = &c;
  }
  return best ? best->name : nullptr;
}

/// "--r" for "--lora-r".
const std::string* the_one_with_this_word(const std::string& wanted, const Candidates& candidates) {
  if (wanted.empty()) return nullptr;
  return only_one(candidates, [&](const std::string& other) {
    return ("-" + other + "-").find("-" + wanted + "-") != std::string::npos;
  });
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
  const Spelling wanted = spelled(name);
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < count; ++i) {
    const Spelling other = spelled(known[i]);
    if (other.letters == wanted.letters) return known[i];
    if (!other.is_short) candidates.push_back({&known[i], other.letters});
  }
  for (const auto rule :
       {the_one_that_begins_so, the_least_misspelled, the_longest_beginning, the_one_with_this_word}) {
    if (const std::string* found = rule(wanted.letters, candidates)) return *found;
  }
  return "";
}

}  // namespace nibble
