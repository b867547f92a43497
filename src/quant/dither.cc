#include "quant/dither.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "core/checked.h"
#include "core/counter_random.h"
#include "core/parallel.h"

namespace nibble {
namespace {

constexpr int64_t kBlocksTogether = 64;
constexpr int64_t kPlacesPerDraw = 4;  // 16 of the 64 bits each

/// Where the cell of each code begins and ends, in units of the scale; the outermost end at their levels.
struct Cells {
  std::array<float, 16> low = {}, width = {};

  explicit Cells(const float* levels) {
    std::array<size_t, 16> order;
    for (size_t code = 0; code < 16; ++code) order[code] = code;
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return levels[a] < levels[b]; });
    for (size_t i = 0; i < 16; ++i) {
      const float level = levels[order[i]];
      const float below = i > 0 ? levels[order[i - 1]] : level, above = i < 15 ? levels[order[i + 1]] : level;
      low[order[i]] = (below + level) / 2;
      width[order[i]] = (level + above) / 2 - low[order[i]];
    }
  }
};

/// In the middle of one of 2^16 parts of [0, 1], so never at an end.
float place(uint64_t bits) { return (static_cast<float>(bits & 0xffff) + 0.5f) * 0x1p-16f; }

}  // namespace

bool can_dither(const Weight& base, const Format& format, const EncodeOptions& encode) {
  const auto* w = std::get_if<QuantizedTensor>(&base);
  return w && w->format == &format && format.block_choice && w->block == block_of(format, encode);
}

Tensor dithered(const QuantizedTensor& w) {
  Tensor values = decode(w);
  const auto encoded = std::get<QuantizedTensor>(encode(values, *w.format, {.block = w.block}));
  const Cells cells(encoded.part("quant_map").f32());
  const auto* packed = encoded.part("data").data<uint8_t>();
  const float* absmax = encoded.part("absmax").f32();
  const CounterRandom random(0, 0);
  const int64_t count = values.count();
  parallel_for(ceil_div(count, w.block), kBlocksTogether, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      bool has_largest = false;
      uint64_t bits = 0;
      for (int64_t i = b * w.block; i < std::min(count, (b + 1) * w.block); ++i, bits >>= 16) {
        if (i % kPlacesPerDraw == 0) bits = random.bits(static_cast<uint64_t>(i / kPlacesPerDraw));
        float& value = values.f32()[i];
        const bool stays = !has_largest && std::fabs(value) == std::fabs(absmax[b]);
        has_largest |= stays;
        const int code = i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15;
        const auto c = static_cast<size_t>(code);
        if (!stays) value = absmax[b] * (cells.low[c] + cells.width[c] * place(bits));
      }
    }
  });
  return values;
}

}  // namespace nibble
