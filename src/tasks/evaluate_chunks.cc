// Cutting a text into pieces to evaluate, by the conventions that docs/evaluation.md describes.
#include "tasks/evaluate_chunks.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/checksum.h"
#include "core/error.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

std::vector<int32_t> piece(const std::vector<int32_t>& prefix, std::span<const int32_t> ids, size_t at, size_t count) {
  std::vector<int32_t> out = prefix;
  const auto part = ids.subspan(at, std::min(count, ids.size() - at));
  out.insert(out.end(), part.begin(), part.end());
  return out;
}

/// Without overlap; a last, shorter piece only when it is the only one.
Chunks cut_apart(std::span<const int32_t> ids, size_t step, const std::vector<int32_t>& prefix) {
  Chunks chunks;
  for (size_t at = 0; at < ids.size(); at += step) {
    if (ids.size() - at < step && !chunks.empty()) break;
    chunks.push_back(piece(prefix, ids, at, step));
  }
  return chunks;
}

/// Pieces that begin `stride` ids apart, up to the one that reaches the end.
Chunks cut_sliding(std::span<const int32_t> ids, size_t length, size_t stride, const std::vector<int32_t>& prefix) {
  Chunks chunks;
  for (size_t at = 0; at < ids.size(); at += stride) {
    chunks.push_back(piece(prefix, ids, at, length));
    if (at + length >= ids.size()) break;
  }
  return chunks;
}

/// As llama.cpp: the text begins with the prefix and is cut with it; the prefix also stands in place of the first id of
/// every later piece.
Chunks cut_as_llama_cpp(std::span<const int32_t> ids, size_t step, const std::vector<int32_t>& prefix) {
  const std::vector<int32_t> all = piece(prefix, ids, 0, ids.size());
  if (!all.empty() && all.size() < step) {
    fail(ErrorCode::invalid_argument, "context: the text has " + std::to_string(all.size()) +
                                          " ids, fewer than the context of " + std::to_string(step) +
                                          ", whose second half is to be scored; use a smaller context");
  }
  Chunks chunks = cut_apart(all, step, {});
  for (std::vector<int32_t>& chunk : chunks) std::copy(prefix.begin(), prefix.end(), chunk.begin());
  return chunks;
}

Chunks cut(std::span<const int32_t> ids, const EvaluateOptions& options, const std::vector<int32_t>& prefix) {
  check_cut(options);
  const int64_t step = options.context - static_cast<int64_t>(prefix.size());
  if (step < 1) fail(ErrorCode::invalid_argument, "context: " + std::to_string(options.context) + " is too short");
  if (options.max_tokens > 0) ids = ids.first(std::min(ids.size(), static_cast<size_t>(options.max_tokens)));
  if (options.scored == ScoredPart::second_half) {
    return cut_as_llama_cpp(ids, static_cast<size_t>(options.context), prefix);
  }
  if (options.stride == 0) return cut_apart(ids, static_cast<size_t>(step), prefix);
  return cut_sliding(ids, static_cast<size_t>(step), static_cast<size_t>(std::min(options.stride, step)), prefix);
}

}  // namespace

std::vector<std::vector<int32_t>> evaluation_chunks(const CausalLM& model, const std::string& text,
                                                    const EvaluateOptions& options) {
  const Tokenizer& tokenizer = model.internal().require_tokenizer();
  std::vector<int32_t> prefix;
  if (tokenizer.adds_bos() && tokenizer.special().bos) prefix.push_back(*tokenizer.special().bos);
  return cut(tokenizer.encode(text, {.add_special_tokens = false}), options, prefix);
}

std::vector<std::vector<int32_t>> evaluation_chunks(const std::vector<int32_t>& ids, const EvaluateOptions& options) {
  return cut(ids, options, {});
}

int64_t first_scored(size_t index, size_t size, const EvaluateOptions& options) {
  const auto ids = static_cast<int64_t>(size);
  int64_t first = 1;  // the first id has nothing in front of it
  if (options.scored == ScoredPart::second_half) first = ids / 2 + 1;
  // What lies before was scored as part of the chunk that begins a stride earlier.
  if (options.stride > 0 && index > 0) first = std::max<int64_t>(1, options.context - options.stride);
  return std::min(first, ids);
}

std::string convention_name(const EvaluateOptions& options) {
  if (options.scored == ScoredPart::second_half) return "second half";
  return options.stride > 0 ? "stride " + std::to_string(options.stride) : "chunks";
}

void check_cut(const EvaluateOptions& options) {
  if (options.stride < 0 || options.stride > options.context) {
    fail(ErrorCode::invalid_argument, "stride: found " + std::to_string(options.stride) + ", expected 0 to " +
                                          std::to_string(options.context) + ", the context");
  }
  if (options.stride > 0 && options.scored != ScoredPart::all) {
    fail(ErrorCode::invalid_argument, "stride and scoring the second half are two conventions: choose one");
  }
}

std::string chunks_hash(const Chunks& chunks) {
  Checksum checksum;
  for (const auto& chunk : chunks) {
    checksum.add(chunk.size());
    for (const int32_t id : chunk) checksum.add(static_cast<uint64_t>(id));
  }
  return fmt::format("{:016x}", checksum.value());
}

}  // namespace nibble
