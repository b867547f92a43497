#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace nibble {

struct SystemInfo {
  std::string isa = {};                         ///< instruction set in use: "avx512", "avxvnni", "avx2", "scalar"
  std::vector<std::string> isa_available = {};  ///< best first; NIBBLE_ISA chooses another
  int cores = 0;                                ///< that this process may use
  uint64_t memory_bytes = 0;
  double dram_bytes_per_second = 0;  ///< 0 unless measured
};

enum class MeasureBandwidth { no, yes };

/// @throws Error{invalid_argument} when NIBBLE_ISA names no instruction set that is available here.
SystemInfo system_info(MeasureBandwidth measure = MeasureBandwidth::no);

/// Threads for all work of this process; 0 = what it may use. @throws Error{invalid_argument} when negative.
void set_threads(int threads);

/// The largest amount of memory this process has held so far.
uint64_t peak_rss_bytes();

}  // namespace nibble
