#pragma once
// What a quantized matrix takes in memory, where its format packs it for computing while a model loads.
#include <map>
#include <tuple>

#include "quant/format.h"

namespace nibble {

/// Two samples of a few rows are packed and measured: the bytes are a straight line over the rows, whatever the format
/// does. Remembers what it measured; one thread at a time.
class ResidentSizes {
 public:
  /// Of all parts of a [rows, cols] matrix. options.source_dtype: what its values were before they were encoded.
  uint64_t bytes(const Format& format, const EncodeOptions& options, const Shape& shape);

 private:
  struct Line {
    uint64_t first, step;  // bytes of the first sample, and of as many rows more
  };
  std::map<std::tuple<const Format*, int64_t, DType>, Line> lines_;  // by format, columns and source dtype
};

}  // namespace nibble
