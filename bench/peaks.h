#pragma once
// What this machine can do at best, one thread, measured: the yardsticks that benchmarks print beside their results.
#include <string_view>

namespace nibble::bench {

/// Independent fused multiply-adds in registers, 10^9 operations per second (a multiply-add is two). 0 for an
/// instruction set that has none ("scalar") or that this processor lacks.
double fma_peak_gflops(std::string_view isa);

/// Reading 512 MiB of huge-page memory in four streams, 10^9 bytes per second.
double dram_read_gbs();

}  // namespace nibble::bench
