#pragma once
// What the system tells about this process and the machine.
#include <cstdint>
#include <filesystem>
#include <optional>

namespace nibble {

/// Makes peak_rss_since_reset() begin anew, and gives freed memory back to the system.
void reset_peak_rss();
/// The most memory held since reset_peak_rss(), in bytes; 0 where the system cannot begin anew.
uint64_t peak_rss_since_reset();

/// The energy that the processor packages have used since some time in the past; nullopt where it cannot be read. The
/// counters wrap around. @param root  of the kernel's powercap tree
std::optional<double> energy_joules(const std::filesystem::path& root = "/sys/class/powercap");

/// Of the last minute: processes that run or wait to.
double load_average();

}  // namespace nibble
