#include "nibble/system.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "core/buffer.h"
#include "core/error.h"
#include "core/parallel.h"
#include "core/progress.h"
#include "kernels/kernels.h"
#include "nibble/version.h"

namespace nibble {
namespace {

constexpr size_t kMeasuredBytes = size_t{512} << 20;  // far beyond every cache
constexpr size_t kFilledWords = size_t{1} << 20;
constexpr int kMeasurements = 5;

/// Best of several reads of a large buffer by all threads, bytes per second.
double measure_bandwidth() {
  const auto buffer = Buffer::allocate_uninitialized(kMeasuredBytes);
  auto* words = reinterpret_cast<uint64_t*>(buffer->data());
  for (size_t begin = 0; begin < kMeasuredBytes / 8; begin += kFilledWords) {  // fresh pages take longer than the reads
    std::fill_n(words + begin, kFilledWords, uint64_t{1});
    check_interrupt();
  }
  double best = 0;
  for (int i = 0; i < kMeasurements; ++i) {
    const auto start = std::chrono::steady_clock::now();
    parallel_for(kMeasuredBytes / 8, 1 << 18, [&](int64_t begin, int64_t end) {
      uint64_t sum = 0;
      for (int64_t w = begin; w < end; ++w) sum += words[w];
      volatile uint64_t keep = sum;
      (void)keep;
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, static_cast<double>(kMeasuredBytes) / seconds);
    check_interrupt();
  }
  return best;
}

}  // namespace

const char* version() { return NIBBLE_VERSION; }

SystemInfo system_info(MeasureBandwidth measure) {
  if (!isa_choice_problem().empty()) fail(ErrorCode::invalid_argument, std::string(isa_choice_problem()));
  SystemInfo info;
  info.isa = kernels().isa;
  for (const Kernels& table : supported_kernels()) info.isa_available.emplace_back(table.isa);
  info.cores = available_threads();
  info.memory_bytes = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  if (measure == MeasureBandwidth::yes) info.dram_bytes_per_second = measure_bandwidth();
  return info;
}

void set_threads(int threads) { set_thread_count(threads); }

// getrusage also counts what the parent process had before this program was loaded; the kernel's VmHWM does not.
uint64_t peak_rss_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::strtoull(line.c_str() + 6, nullptr, 10) * 1024;
  }
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace nibble
