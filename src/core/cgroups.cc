#include "core/cgroups.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

/// What one group's folder grants.
using Limit = double (*)(const fs::path& folder);

std::optional<double> read_number(const fs::path& path) {
  std::ifstream file(path);
  double value = 0;
  return file >> value ? std::optional(value) : std::nullopt;
}

/// The number behind a word, of files with lines "word number [unit]"; 0 without it.
double read_field(const fs::path& path, std::string_view field) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    double value = 0;
    if (words >> word >> value && word == field) return value;
  }
  return 0;
}

// cpu.max of version 2: "QUOTA PERIOD" in microseconds, or "max PERIOD".
double quota_v2(const fs::path& folder) {
  std::ifstream file(folder / "cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period && quota > 0 && period > 0 ? quota / period : kUnlimited;
}

// Version 1 has one file for each; a quota of -1 means none.
double quota_v1(const fs::path& folder) {
  const auto quota = read_number(folder / "cpu.cfs_quota_us"), period = read_number(folder / "cpu.cfs_period_us");
  return quota && period && *quota > 0 && *period > 0 ? *quota / *period : kUnlimited;
}

double left_of(const std::optional<double>& limit, const std::optional<double>& used, double droppable) {
  return limit && used ? std::max(0.0, *limit - *used + droppable) : kUnlimited;
}

// memory.max of version 2 is a number of bytes, or "max".
double memory_v2(const fs::path& folder) {
  return left_of(read_number(folder / "memory.max"), read_number(folder / "memory.current"),
                 read_field(folder / "memory.stat", "inactive_file"));
}

// Version 1 writes a number beyond every memory for no limit.
double memory_v1(const fs::path& folder) {
  return left_of(read_number(folder / "memory.limit_in_bytes"), read_number(folder / "memory.usage_in_bytes"),
                 read_field(folder / "memory.stat", "total_inactive_file"));
}

// The smallest limit from the group up to the root of the hierarchy. In a container the group's path may be the
// host's, which is not visible inside; missing folders are no limit.
double smallest_on_path(const fs::path& hierarchy, std::string_view group, Limit limit) {
  fs::path folder = fs::path(group).relative_path();
  double smallest = limit(hierarchy);
  for (; !folder.empty(); folder = folder.parent_path()) smallest = std::min(smallest, limit(hierarchy / folder));
  return smallest;
}

bool lists(std::string_view controllers, std::string_view controller) {
  return ("," + std::string(controllers) + ",").find("," + std::string(controller) + ",") != std::string::npos;
}

/// The smallest limit of a controller in all hierarchies that the process is a member of.
double smallest_limit(std::string_view membership, const fs::path& mount, const std::string& controller, Limit v2,
                      Limit v1) {
  double smallest = kUnlimited;
  std::istringstream lines{std::string(membership)};
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) smallest = std::min(smallest, smallest_on_path(mount, group, v2));
    if (!lists(controllers, controller)) continue;
    smallest = std::min(smallest, smallest_on_path(mount / controller, group, v1));
    if (controllers != controller) smallest = std::min(smallest, smallest_on_path(mount / controllers, group, v1));
  }
  return smallest;
}

}  // namespace

std::string cgroup_membership() {
  std::ifstream file("/proc/self/cgroup");
  return {std::istreambuf_iterator<char>(file), {}};
}

std::optional<double> cpu_quota(std::string_view membership, const fs::path& mount) {
  const double quota = smallest_limit(membership, mount, "cpu", quota_v2, quota_v1);
  return quota == kUnlimited ? std::nullopt : std::optional(quota);
}

std::optional<uint64_t> memory_left(std::string_view membership, const fs::path& mount) {
  const double bytes = smallest_limit(membership, mount, "memory", memory_v2, memory_v1);
  return bytes < 0x1p62 ? std::optional(static_cast<uint64_t>(bytes)) : std::nullopt;
}

uint64_t available_memory() {
  const double available = read_field("/proc/meminfo", "MemAvailable:") * 1024;  // the file's "kB" are KiB
  const auto physical = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t system = available > 0 ? static_cast<uint64_t>(available) : physical;
  return std::min(system, memory_left(cgroup_membership(), kCgroupMount).value_or(system));
}

}  // namespace nibble
