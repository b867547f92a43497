#pragma once
// What the files of bench_kernels share.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

#include "kernels/kernels.h"

namespace nibble::bench {

inline std::vector<float> gaussian(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

// Where a kernel's result goes: 10^9 per second, under the name of what is counted.
inline void set_rate(benchmark::State& state, const char* unit, double per_iteration) {
  state.counters[unit] =
      benchmark::Counter(per_iteration * static_cast<double>(state.iterations()) / 1e9, benchmark::Counter::kIsRate);
}

// Of a peak in 10^9 per second; 0 = there is none.
inline void set_share(benchmark::State& state, double per_iteration, double peak_g, const char* name = "of_peak") {
  if (peak_g == 0) return;
  state.counters[name] = benchmark::Counter(per_iteration * static_cast<double>(state.iterations()) / 1e9 / peak_g,
                                            benchmark::Counter::kIsRate);
}

struct Shape {
  int64_t tokens, rows, k;
};

/// What this machine does at best, 10^9 operations or bytes per second.
struct Peaks {
  double i8, i16, f32, dram;
};

/// Products with weights in all forms that a model keeps them in, what becomes of their activations, and the sums of
/// attention.
void register_weight_kernels(const Kernels& table, const Peaks& peaks);

}  // namespace nibble::bench
