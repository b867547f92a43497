#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "nibble/dtype.h"
#include "nibble/progress.h"

namespace nibble {

struct QuantizeOptions {
  std::string format = "nf4";
  bool double_quant = false;
  int64_t block = 0;                    ///< 4-bit formats: 32 to 4096, a power of two; 0 = 64
  std::string granularity = "channel";  ///< int8-dynamic: one scale per output row ("channel") or "tensor"
  DType compute_dtype = DType::f32;     ///< recorded for the reader; 4-bit formats
  float int8_threshold = 6.0f;          ///< recorded for the reader; int8
  std::vector<std::string> skip = {};   ///< modules to keep, by full name, dotted prefix or suffix
  uint64_t max_shard_size = 5'000'000'000;
  bool overwrite = false;
  ProgressFn progress = {};
};

/// `base` with what a recipe file changes: a JSON object with any of format, double_quant, block, granularity,
/// compute_dtype, int8_threshold, skip and max_shard_size.
/// @throws Error{format} for unknown keys, naming the nearest known one, and for values of the wrong type.
QuantizeOptions quantize_options_from_file(const std::string& path, const QuantizeOptions& base = {});

struct TensorReport {
  std::string name = {};
  std::vector<int64_t> shape = {};
  std::string format = {};
  double relative_error = 0, sqnr_db = 0, max_abs_error = 0;
  int64_t nan_count = 0, inf_count = 0;
  int64_t first_nonfinite = -1;  ///< flat index; -1 = all values are finite
  uint64_t bytes_before = 0, bytes_after = 0;
};

struct QuantizeReport {
  std::string output = {}, format = {}, architecture = {};
  int64_t parameters = 0;
  uint64_t bytes_before = 0, bytes_after = 0;  ///< of all weights, as stored
  double linear_bits_per_weight = 0;           ///< of the quantized layers, scales included
  std::vector<TensorReport> tensors = {};      ///< the quantized ones
  std::vector<std::string> skipped = {};       ///< Linear layers that were kept
  std::vector<TensorReport> kept = {};         ///< every other tensor
};

/// Writes a quantized copy of a model as a folder in the bitsandbytes layout (nibble's own fields where bitsandbytes
/// has no such format). At most three tensors are in memory: one is read, one converted, one written.
/// @throws Error{exists} when `out` exists and overwrite is not set; nothing is written unless all is.
QuantizeReport quantize(const std::string& model, const std::string& out, const QuantizeOptions& options = {});

struct DequantizeOptions {
  DType dtype = DType::f32;
  uint64_t max_shard_size = 5'000'000'000;
  bool overwrite = false;
  ProgressFn progress = {};
};

struct DequantizeReport {
  std::string output = {};
  uint64_t bytes_before = 0, bytes_after = 0;
};

/// Writes the dense model that a quantized one stands for, as an ordinary Hugging Face folder.
DequantizeReport dequantize(const std::string& model, const std::string& out, const DequantizeOptions& options = {});

}  // namespace nibble
