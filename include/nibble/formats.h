#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

/// A row of the table of formats that models can be quantized to.
struct FormatInfo {
  std::string name = {};
  double bits_per_weight = 0;
  double bits_per_weight_double_quant = 0;  ///< 0 where double quantization means nothing
  int64_t block = 0;                        ///< weights per scale at the default; 0 = a row, or no scale
  std::string readable_by = {};
};

std::vector<FormatInfo> list_formats();

/// Block formats of GGUF files that are read: "q4_0", "q6_k", ...
std::vector<std::string> list_gguf_formats();

/// The introductory example of affine INT8 quantization: nine numbers, min/max mapped to 0..255.
struct AffineExample {
  std::vector<double> values = {};
  std::vector<int> codes = {};              ///< round((x - min) / range * 255)
  std::vector<double> reconstruction = {};  ///< code * scale + min
  std::vector<int> torch_codes = {};        ///< torch's quint8: the zero point is rounded, so 0.0 is exact
  std::vector<double> torch_reconstruction = {};
  double scale = 0, min = 0;
  int torch_zero_point = 0;
};

AffineExample affine_int8_example();

}  // namespace nibble
