#pragma once
// What this machine can do at best, one thread, measured: the yardsticks that benchmarks print beside their results.
#include <string_view>

namespace nibble::bench {

/// Independent sums of products of f32 (fused multiply-adds), i16 or i8 in registers, 10^9 operations per second (a
/// product and its sum are two). 0 for an instruction set that has none ("scalar") or that this processor lacks.
double dot_peak_gops(std::string_view isa, int bits);

/// Reading 512 MiB of huge-page memory in four streams, 10^9 bytes per second.
double dram_read_gbs();

}  // namespace nibble::bench
