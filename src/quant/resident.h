#pragma once
// What a quantized matrix takes in memory, where its format packs it for computing while a model loads.
#include <map>
#include <tuple>

#include "quant/format.h"

namespace nibble {

/// Two samples of a few rows are packed and measured: the bytes are a straight line over the rows in groups of 16, by
/// which packed layouts go (of others up to 15 rows too many). Remembers what it measured; one thread at a time.
class ResidentSizes {
 public:
  /// Of all parts of a [rows, cols] matrix. options.source_dtype: what its values were before they were encoded.
  uint64_t bytes(const Format& format, const EncodeOptions& options, const Shape& shape);

 private:
  struct Line {
    uint64_t first, step;  // bytes of the first sample, and of as many rows more
  };
  /// Format, columns, and what the options say.
  using Key = std::tuple<const Format*, int64_t, int64_t, bool, Granularity, DType>;
  std::map<Key, Line> lines_;
};

}  // namespace nibble
