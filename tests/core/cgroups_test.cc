#include "core/cgroups.h"

#include "support/files.h"

namespace nibble {
namespace {

TEST(CpuQuota, Version2TakesTheSmallestOnThePathToTheRoot) {
  const test::TempFolder mount;
  mount.write("cpu.max", "max 100000\n");
  mount.write("a/cpu.max", "150000 100000\n");
  mount.write("a/b/cpu.max", "300000 100000\n");
  EXPECT_EQ(cpu_quota("0::/a/b\n", mount.path()), 1.5);
  EXPECT_EQ(cpu_quota("0::/\n", mount.path()), std::nullopt);
}

TEST(CpuQuota, Version2InsideAContainerSeesOnlyItsOwnRoot) {
  const test::TempFolder mount;
  mount.write("cpu.max", "50000 100000\n");
  EXPECT_EQ(cpu_quota("0::/docker/0123abcd\n", mount.path()), 0.5);
}

TEST(CpuQuota, Version1ReadsQuotaAndPeriodOfTheCpuController) {
  const test::TempFolder mount;
  mount.write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  mount.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  mount.write("cpu,cpuacct/job/cpu.cfs_quota_us", "400000\n");
  mount.write("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  mount.write("cpuset/job/cpu.cfs_quota_us", "1000\n");
  mount.write("cpuset/job/cpu.cfs_period_us", "100000\n");
  const char* membership = "12:cpuset:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/\n";
  EXPECT_EQ(cpu_quota(membership, mount.path()), 4.0);
  EXPECT_EQ(cpu_quota("4:cpu,cpuacct:/\n", mount.path()), std::nullopt);
}

TEST(CpuQuota, NothingReadableMeansNoLimit) {
  const test::TempFolder mount;
  EXPECT_EQ(cpu_quota("", mount.path()), std::nullopt);
  EXPECT_EQ(cpu_quota("no colons here\n0:only one\n", mount.path()), std::nullopt);
  mount.write("cpu.max", "garbage");
  EXPECT_EQ(cpu_quota("0::/x\n", mount.path()), std::nullopt);
  mount.write("cpu.max", "0 0");
  EXPECT_EQ(cpu_quota("0::/x\n", mount.path()), std::nullopt);
}

TEST(MemoryLeft, IsTheLeastOnThePathAndCountsDroppableCacheAsFree) {
  const test::TempFolder mount;
  mount.write("memory.max", "max\n");
  mount.write("memory.current", "123\n");
  mount.write("a/memory.max", "1000000\n");
  mount.write("a/memory.current", "600000\n");
  mount.write("a/memory.stat", "anon 350000\nfile 250000\ninactive_file 200000\n");
  mount.write("a/b/memory.max", "5000000\n");
  mount.write("a/b/memory.current", "400000\n");
  EXPECT_EQ(memory_left("0::/a/b\n", mount.path()), 600'000u);
  EXPECT_EQ(memory_left("0::/\n", mount.path()), std::nullopt);
}

TEST(MemoryLeft, Version1AndOverfullGroups) {
  const test::TempFolder mount;
  mount.write("memory/job/memory.limit_in_bytes", "4096\n");
  mount.write("memory/job/memory.usage_in_bytes", "5000\n");
  EXPECT_EQ(memory_left("3:memory:/job\n", mount.path()), 0u);
  mount.write("memory/job/memory.stat", "cache 3000\ntotal_inactive_file 2000\n");
  EXPECT_EQ(memory_left("3:memory:/job\n", mount.path()), 1096u);
  mount.write("memory/free/memory.limit_in_bytes", "9223372036854771712\n");
  mount.write("memory/free/memory.usage_in_bytes", "5000\n");
  EXPECT_EQ(memory_left("3:memory:/free\n", mount.path()), std::nullopt);
}

TEST(AvailableMemory, IsSomeAndNotMoreThanThereIs) {
  EXPECT_GT(available_memory(), uint64_t{1} << 20);
  EXPECT_LT(available_memory(), uint64_t{1} << 50);
}

}  // namespace
}  // namespace nibble
