#pragma once
// Random weights in the stored and the packed layout, and activations in panels.
#include "kernels/every_isa.h"
#include "kernels/levels.h"

namespace nibble {

struct PackedSizes {
  int64_t rows, k, block = 64;
  ScaleType scale_type = ScaleType::bf16;

  RecordLayout layout() const { return {.groups = block < kPackInputs ? 2 : 1, .scale_type = scale_type}; }
};

struct PackedWeights {
  PackedSizes sizes;
  Guarded<uint8_t> packed;
  Guarded<float> absmax;
  Guarded<uint8_t> records;
  Levels4 levels;

  PackedWeights(const Kernels& table, PackedSizes s, const std::array<float, 16>& by_code, uint32_t seed = 5)
      : sizes(s),
        packed(s.rows * s.k / 2),
        absmax(gaussian((s.rows * s.k + s.block - 1) / s.block, seed, 0.05f)),
        records(packed4_bytes(s.rows, s.k, s.layout())),
        levels(make_levels4(by_code.data())) {
    std::mt19937 random(seed);
    for (int64_t i = 0; i < s.rows * s.k / 2; ++i) packed[i] = static_cast<uint8_t>(random());
    for (int64_t i = 0; i < (s.rows * s.k + s.block - 1) / s.block && s.scale_type == ScaleType::bf16; ++i) {
      absmax[i] = std::bit_cast<float>(std::bit_cast<uint32_t>(absmax[i]) & 0xffff0000u);
    }
    pack(table);
  }

  void pack(const Kernels& table) {
    table.pack_4bit(
        {packed.data(), absmax.data(), records.data(), 0, sizes.block, sizes.rows, sizes.k, sizes.layout()});
  }
  Packed4 view() { return {records.data(), &levels, sizes.rows, sizes.k, sizes.layout()}; }
  std::vector<float> decoded() {  // as the stored layout says
    std::vector<float> out(static_cast<size_t>(sizes.rows * sizes.k));
    supported_kernels().back().decode_4bit(packed.data(), absmax.data(), levels.exact, 0, sizes.rows * sizes.k,
                                           sizes.block, out.data());
    return out;
  }
};

/// The three kinds of activations with their products.
struct Precision {
  const char* name;
  PanelType panels;
  void (*Kernels::*activations)(const Activations4&) noexcept;
  void (*Kernels::*multiply)(const MatmulPacked4&) noexcept;
};
inline const Precision kI8 = {"i8", PanelType::i8, &Kernels::activations4_i8, &Kernels::matmul_packed4_i8};
inline const Precision kI16 = {"i16", PanelType::i16, &Kernels::activations4_i16, &Kernels::matmul_packed4_i16};
inline const Precision kF32 = {"f32", PanelType::f32, &Kernels::activations4_f32, &Kernels::matmul_packed4_f32};

/// The panels of a, which has none yet.
inline Guarded<uint32_t> panels_of(const Kernels& table, const Precision& p, Activations4 a) {
  Guarded<uint32_t> panels(panel_words(a.tokens, a.k, block_words(p.panels, a.layout)));
  a.panels = panels.data();
  (table.*p.activations)(a);
  return panels;
}

inline std::vector<float> product(const Kernels& table, const Precision& p, const Packed4& w, const float* x,
                                  int64_t tokens) {
  Guarded<uint32_t> panels = panels_of(table, p, {x, nullptr, tokens, w.k, w.k, table.panel_layout(w.layout)});
  std::vector<float> y(static_cast<size_t>(tokens * w.rows));
  (table.*p.multiply)({w, panels.data(), y.data(), tokens, w.rows});
  return y;
}

}  // namespace nibble
