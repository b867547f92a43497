#include "nibble/formats.h"

#include <algorithm>
#include <cmath>

#include "quant/format.h"

namespace nibble {

std::vector<FormatInfo> list_formats() {
  std::vector<FormatInfo> out;
  for (const std::string& name : writable_format_names()) {
    const Format& f = find_format(name);
    out.push_back({name, f.bits_per_weight, f.bits_per_weight_double_quant, f.block, std::string(f.readable_by)});
  }
  return out;
}

std::vector<std::string> list_gguf_formats() {
  std::vector<std::string> out;
  for (const Format& f : all_formats()) {
    if (!f.encode && !f.dense) out.emplace_back(f.name);
  }
  return out;
}

// q = round((x - min) / range * 255) keeps the offset a real number. torch rounds it to an integer zero point instead,
// which moves a code here and there and makes 0.0 exact.
AffineExample affine_int8_example() {
  AffineExample e;
  e.values = {0.34, 3.75, 5.64, 1.12, 2.7, -0.9, -4.7, 0.68, 1.43};
  const auto [low, high] = std::minmax_element(e.values.begin(), e.values.end());
  e.min = *low;
  e.scale = (*high - *low) / 255.0;
  e.torch_zero_point = static_cast<int>(std::nearbyint(-e.min / e.scale));
  for (const double x : e.values) {
    e.codes.push_back(static_cast<int>(std::nearbyint((x - e.min) / e.scale)));
    e.reconstruction.push_back(e.codes.back() * e.scale + e.min);
    const double torch_code = std::nearbyint(x / e.scale) + e.torch_zero_point;
    e.torch_codes.push_back(static_cast<int>(std::clamp(torch_code, 0.0, 255.0)));
    e.torch_reconstruction.push_back((e.torch_codes.back() - e.torch_zero_point) * e.scale);
  }
  return e;
}

}  // namespace nibble
