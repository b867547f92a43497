#include "core/cpu_quota.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace nibble {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

// cpu.max of version 2: "QUOTA PERIOD" in microseconds, or "max PERIOD".
double quota_v2(const std::filesystem::path& folder) {
  std::ifstream file(folder / "cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period && quota > 0 && period > 0 ? quota / period : kUnlimited;
}

// Version 1 has one file for each; a quota of -1 means none.
double quota_v1(const std::filesystem::path& folder) {
  std::ifstream quota_file(folder / "cpu.cfs_quota_us"), period_file(folder / "cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period && quota > 0 && period > 0 ? quota / period : kUnlimited;
}

// The smallest limit from the group up to the root of the hierarchy. In a container the group's path may be the
// host's, which is not visible inside; missing folders are no limit.
double smallest_on_path(const std::filesystem::path& hierarchy, std::string_view group,
                        double (*quota)(const std::filesystem::path&)) {
  std::filesystem::path folder = std::filesystem::path(group).relative_path();
  double smallest = quota(hierarchy);
  for (; !folder.empty(); folder = folder.parent_path()) smallest = std::min(smallest, quota(hierarchy / folder));
  return smallest;
}

bool lists_cpu(std::string_view controllers) {
  return ("," + std::string(controllers) + ",").find(",cpu,") != std::string::npos;
}

}  // namespace

std::optional<double> cpu_quota(std::string_view membership, const std::filesystem::path& mount) {
  double smallest = kUnlimited;
  std::istringstream lines{std::string(membership)};
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) smallest = std::min(smallest, smallest_on_path(mount, group, quota_v2));
    if (!lists_cpu(controllers)) continue;
    for (const std::string& folder : {controllers, std::string("cpu")}) {
      smallest = std::min(smallest, smallest_on_path(mount / folder, group, quota_v1));
    }
  }
  return smallest == kUnlimited ? std::nullopt : std::optional(smallest);
}

}  // namespace nibble
