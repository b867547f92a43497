#pragma once
// How much processor time a container grants.
#include <filesystem>
#include <optional>
#include <string_view>

namespace nibble {

/// The smallest CPU quota, in processors, of the process's control groups and their parents; nullopt when unlimited.
/// @param membership  the text of /proc/self/cgroup: lines "0::/path" (version 2) or "4:cpu,cpuacct:/path" (version 1).
/// @param mount       where the hierarchies are mounted, normally /sys/fs/cgroup.
std::optional<double> cpu_quota(std::string_view membership, const std::filesystem::path& mount);

}  // namespace nibble
