#pragma once
#include <cstdint>
#include <string>

namespace nibble {

/// The merge through whose rounding an adapter was trained: finetune() with merge_aware.
struct MergeTarget {
  std::string format = {};
  int64_t block = 0;  ///< weights per scale; 0 = the format has no choice
  bool double_quant = false;
  bool dither = false;    ///< the weights of a base in the same format are dithered first, see MergeOptions
  std::string base = {};  ///< format of the layers that it changes: "dense", "nf4", ...; several: "q4_k+q6_k"
  bool operator==(const MergeTarget&) const = default;
};

}  // namespace nibble
