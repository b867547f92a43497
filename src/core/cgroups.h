#pragma once
// How much processor time and memory a container grants: what the process's control groups say, and their parents.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace nibble {

/// The text of /proc/self/cgroup: lines "0::/path" (version 2) or "4:cpu,cpuacct:/path" (version 1).
std::string cgroup_membership();

inline constexpr const char* kCgroupMount = "/sys/fs/cgroup";

/// The smallest CPU quota on the path to the root, in processors; nullopt when unlimited.
/// @param membership  as cgroup_membership() reads it
/// @param mount       where the hierarchies are mounted, normally kCgroupMount
std::optional<double> cpu_quota(std::string_view membership, const std::filesystem::path& mount);

/// The least memory that a group on the path to the root still has to give, in bytes; file cache that can be dropped
/// counts as free. nullopt when unlimited.
std::optional<uint64_t> memory_left(std::string_view membership, const std::filesystem::path& mount);

/// Bytes that can be allocated without swapping: the smaller of the system's MemAvailable and memory_left().
uint64_t available_memory();

}  // namespace nibble
