#pragma once
// What weights are read at when nothing else is done with them: the limit that products are compared with.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace nibble::raw {

// Which way of reading is the fastest differs from processor to processor, so the limit is the best of all.

/// Four streams of 4 KiB pieces by the absmax kernel, which processors fetch ahead themselves.
inline float read_streams(const std::byte* w, size_t bytes) {
  constexpr size_t kStreams = 4, kPiece = 1024;
  const auto* x = reinterpret_cast<const float*>(w);
  const size_t count = bytes / sizeof(float) / kStreams;
  float largest = 0;
  for (size_t i = 0; i < count; i += kPiece) {
    const auto piece = static_cast<int64_t>(std::min(kPiece, count - i));
    for (size_t s = 0; s < kStreams; ++s) largest = std::max(largest, kernels().absmax(x + s * count + i, piece));
  }
  return largest;
}

/// One stream, fetched ahead by instructions, as the products do.
inline float read_ahead(const std::byte* w, size_t bytes) {
  constexpr size_t kPiece = 1024, kLine = 64, kAhead = 4096;
  float largest = 0;
  for (size_t at = 0; at < bytes; at += kPiece) {
    const size_t piece = std::min(kPiece, bytes - at);
    for (size_t line = 0; line < piece; line += kLine) __builtin_prefetch(w + at + line + kAhead);
    const auto* x = reinterpret_cast<const float*>(w + at);
    largest = std::max(largest, kernels().absmax(x, static_cast<int64_t>(piece / sizeof(float))));
  }
  return largest;
}

struct Way {
  const char* name;
  float (*read)(const std::byte* w, size_t bytes);
};
inline constexpr Way kWays[] = {{"read streams", read_streams}, {"read ahead", read_ahead}};

}  // namespace nibble::raw
