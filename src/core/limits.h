#pragma once
// Limits on what an untrusted file may ask for. They are far above every published model and far below what would hurt.
#include <cstdint>

namespace nibble::limits {

inline constexpr uint64_t kSafetensorsHeaderBytes = 100'000'000;  // as the reference implementation
inline constexpr uint64_t kMaxRank = 8;
inline constexpr uint64_t kMaxDim = uint64_t{1} << 48;
inline constexpr uint64_t kMaxNameBytes = 4096;
inline constexpr uint64_t kMaxStringBytes = 64u << 20;
inline constexpr uint64_t kMaxJsonBytes = 512u << 20;
inline constexpr int kMaxJsonDepth = 64;
inline constexpr int kMaxHeaderDepth = 8;
inline constexpr uint64_t kMaxKeys = 1'000'000;
inline constexpr int64_t kMaxVocabulary = 4'000'000;
inline constexpr int64_t kMaxLayers = 10'000;
inline constexpr int64_t kMaxHeads = 65'536;

}  // namespace nibble::limits
