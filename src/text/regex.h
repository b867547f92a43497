#pragma once
// Regular expressions of tokenizer files. They are written for Oniguruma (Ruby's engine) and run here by PCRE2, so the
// few constructs that mean something else there are rewritten first. Patterns and texts are untrusted: the engine's
// steps, recursion and memory are limited.
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace nibble {

/// Bytes [begin, end) of a text.
struct Span {
  size_t begin;
  size_t end;
  bool operator==(const Span&) const = default;
};

class Regex {
 public:
  /// @throws Error{format} when the pattern does not compile, Error{unsupported} for class intersections.
  Regex(const std::string& pattern, const std::string& where);

  /// All matches from left to right, without overlap. An empty match right behind another match does not count.
  /// @param text valid UTF-8
  /// @throws Error{resources} when matching exceeds the engine's limits.
  std::vector<Span> find_all(std::string_view text) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

/// The pattern in PCRE2's dialect, with the meaning it has for Oniguruma.
std::string to_pcre2(const std::string& pattern, const std::string& where);

}  // namespace nibble
