// Products of many tokens with packed weights, as in reading a prompt: 10^9 operations per second of one thread
// in processor time, the preparation of the activations included, and the share of what the instruction set can do with
// everything in registers. Best and median of the samples.
//   bench_prefill [part of "ISA precision"]
#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "kernels/kernels.h"
#include "peaks.h"

namespace nibble::bench {
namespace {

constexpr int kSamples = 7;

struct Shape {
  int64_t rows, k;
};

struct Precision {
  const char* name;
  int bits;
  PanelType panels;
  void (*Kernels::*activations)(const Activations4&) noexcept;
  void (*Kernels::*multiply)(const MatmulPacked4&) noexcept;
};
constexpr Precision kPrecisions[] = {
    {"i8", 8, PanelType::i8, &Kernels::activations4_i8, &Kernels::matmul_packed4_i8},
    {"i16", 16, PanelType::i16, &Kernels::activations4_i16, &Kernels::matmul_packed4_i16},
    {"f32", 32, PanelType::f32, &Kernels::activations4_f32, &Kernels::matmul_packed4_f32},
};

struct NamedLayout {
  const char* name;
  RecordLayout layout;
};
constexpr NamedLayout kLayouts[] = {
    {"nf4", {}},
    {"q4_0", {.groups = 2, .scale_type = ScaleType::f16}},
    {"q4_1", {.groups = 2, .scale_type = ScaleType::f16, .minimums = 1}},
    {"q8_0", {.code_bits = 8, .groups = 2, .scale_type = ScaleType::f16}},
};

double seconds_now() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void measure(const Kernels& table, const Precision& p, const NamedLayout& named, Shape s, int64_t tokens, double peak) {
  const auto& [name, layout] = named;
  const auto records = Buffer::allocate(static_cast<size_t>(packed4_bytes(s.rows, s.k, layout)));
  std::mt19937 random(1);
  // Scales below 1, never NaN, and never subnormal, which some processors are slow on.
  for (auto& byte : records->span()) byte = static_cast<std::byte>((random() & 0x3b) | 0x10);
  std::vector<float> x(static_cast<size_t>(tokens * s.k)), y(static_cast<size_t>(tokens * s.rows)), levels(16, 0.25f);
  for (float& value : x) value = static_cast<float>(random() % 2001) - 1000.0f;
  std::vector<uint32_t> panels(
      static_cast<size_t>(panel_words(tokens, s.k, block_words(p.panels, table.panel_layout(layout)))));
  const Levels4 rounded = make_levels4(levels.data());
  const Packed4 w{reinterpret_cast<const uint8_t*>(records->data()), &rounded, s.rows, s.k, layout};
  const double operations = static_cast<double>(2 * s.rows * s.k * tokens);
  const int calls = std::max(1, static_cast<int>(5e8 / operations));
  std::vector<double> gops;
  for (int sample = 0; sample < kSamples; ++sample) {
    const double start = seconds_now();
    for (int i = 0; i < calls; ++i) {
      (table.*p.activations)({x.data(), panels.data(), tokens, s.k, s.k, table.panel_layout(layout)});
      (table.*p.multiply)({w, panels.data(), y.data(), tokens, s.rows});
    }
    gops.push_back(calls * operations / (seconds_now() - start) / 1e9);
  }
  std::sort(gops.begin(), gops.end());
  fmt::print(
      "{:<7} {:<4} {:<4} {:>5} x {:<5} {:>4} tokens  {:6.1f} GOP/s best {:6.1f} median  {:5.2f} {:5.2f} of the peak\n",
      table.isa, p.name, name, s.rows, s.k, tokens, gops.back(), gops[kSamples / 2], gops.back() / peak,
      gops[kSamples / 2] / peak);
}

}  // namespace
}  // namespace nibble::bench

int main(int argc, char** argv) {
  using namespace nibble;
  const std::string filter = argc > 1 ? argv[1] : "";
  for (const Kernels& table : supported_kernels()) {
    for (const bench::Precision& p : bench::kPrecisions) {
      const double peak = bench::dot_peak_gops(table.isa, p.bits);
      if (peak == 0 || fmt::format("{} {}", table.isa, p.name).find(filter) == std::string::npos) continue;
      fmt::print("{} {}: peak {:.0f} GOP/s\n", table.isa, p.name, peak);
      for (const bench::Shape s : {bench::Shape{576, 576}, bench::Shape{1536, 576}, bench::Shape{576, 1536},
                                   bench::Shape{4096, 4096}, bench::Shape{11008, 4096}}) {
        for (const bench::NamedLayout& layout : bench::kLayouts) {
          for (const int64_t tokens : {32, 128, 512}) bench::measure(table, p, layout, s, tokens, peak);
        }
      }
    }
  }
}
