#include "tasks/meters.h"

#include <malloc.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "core/buffer.h"
#include "nibble/system.h"

namespace nibble {
namespace {

bool can_reset = false;

}  // namespace

void reset_peak_rss() {
  malloc_trim(0);
  Buffer::release_spare();
  std::ofstream file("/proc/self/clear_refs");
  can_reset = static_cast<bool>(file << "5" << std::flush);  // 5: the high-water mark of the resident set
}

uint64_t peak_rss_since_reset() { return can_reset ? peak_rss_bytes() : 0; }

std::optional<double> energy_joules(const std::filesystem::path& root) {
  std::optional<double> joules;
  std::error_code error;
  for (const auto& zone : std::filesystem::directory_iterator(root, error)) {
    // "intel-rapl:0" is a package (AMD's too), "intel-rapl:0:1" a part of it.
    const std::string name = zone.path().filename().string();
    if (!name.starts_with("intel-rapl:") || name.find(':') != name.rfind(':')) continue;
    std::ifstream file(zone.path() / "energy_uj");
    double microjoules = 0;
    if (file >> microjoules) joules = joules.value_or(0.0) + microjoules * 1e-6;
  }
  return joules;
}

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

}  // namespace nibble
