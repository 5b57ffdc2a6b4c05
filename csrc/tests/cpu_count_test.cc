#include "modelsat/cpu_count.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace modelsat {
namespace {

namespace fs = std::filesystem;

// A made-up root file system with the files in which Linux describes control groups.
class CgroupCpuQuotaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const ::testing::TestInfo* info = ::testing::UnitTest::GetInstance()->current_test_info();
    root_ = fs::path(::testing::TempDir()) / (std::string("modelsat_cgroup_") + info->name());
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const fs::path target = root_ / path;
    fs::create_directories(target.parent_path());
    std::ofstream(target) << text;
  }

  std::optional<double> Quota() const { return CgroupCpuQuota(root_.string()); }

  static constexpr const char* kVersion2Mount =
      "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";

 private:
  fs::path root_;
};

TEST_F(CgroupCpuQuotaTest, NoControlGroupsMeansNoQuota) { EXPECT_EQ(Quota(), std::nullopt); }

TEST_F(CgroupCpuQuotaTest, Version2QuotaOverPeriod) {
  Write("proc/self/mountinfo", kVersion2Mount);
  Write("proc/self/cgroup", "0::/service\n");
  Write("sys/fs/cgroup/service/cpu.max", "150000 100000\n");
  EXPECT_EQ(Quota(), 1.5);
}

TEST_F(CgroupCpuQuotaTest, Version2MaxMeansNoQuota) {
  Write("proc/self/mountinfo", kVersion2Mount);
  Write("proc/self/cgroup", "0::/service\n");
  Write("sys/fs/cgroup/service/cpu.max", "max 100000\n");
  EXPECT_EQ(Quota(), std::nullopt);
}

TEST_F(CgroupCpuQuotaTest, TightestAncestorBinds) {
  Write("proc/self/mountinfo", kVersion2Mount);
  Write("proc/self/cgroup", "0::/pod/container/worker\n");
  Write("sys/fs/cgroup/pod/cpu.max", "250000 50000\n");
  Write("sys/fs/cgroup/pod/container/cpu.max", "300000 100000\n");
  Write("sys/fs/cgroup/pod/container/worker/cpu.max", "max 100000\n");
  EXPECT_EQ(Quota(), 3.0);
}

TEST_F(CgroupCpuQuotaTest, Version2InsideACgroupNamespace) {
  Write("proc/self/mountinfo", kVersion2Mount);
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/cpu.max", "700000 100000\n");
  EXPECT_EQ(Quota(), 7.0);
}

TEST_F(CgroupCpuQuotaTest, Version1QuotaAndItsAbsence) {
  Write("proc/self/mountinfo",
        "33 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "34 25 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
  Write("proc/self/cgroup", "5:cpuset:/\n4:cpu,cpuacct:/job\n");
  Write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
  Write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Quota(), std::nullopt);
  Write("sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us", "200000\n");
  EXPECT_EQ(Quota(), 2.0);
}

// A container without a cgroup namespace sees the host's path, but only its own part is mounted.
TEST_F(CgroupCpuQuotaTest, MountRootIsTakenOffThePath) {
  Write("proc/self/mountinfo",
        "33 25 0:28 /docker/abc /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n");
  Write("proc/self/cgroup", "4:cpu:/docker/abc\n");
  Write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "400000\n");
  Write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(Quota(), 4.0);
}

TEST_F(CgroupCpuQuotaTest, NonsenseInAFileIsNoQuota) {
  Write("proc/self/mountinfo", std::string("garbage\n") + kVersion2Mount);
  Write("proc/self/cgroup", "no colons here\n0::/service\n");
  for (const char* text : {"", "12", "abc 100000", "100000 0", "-5 100000"}) {
    Write("sys/fs/cgroup/service/cpu.max", text);
    EXPECT_EQ(Quota(), std::nullopt) << text;
  }
}

TEST(UsableCpuCountTest, QuotaIsRoundedDownButNeverToNothing) {
  EXPECT_EQ(UsableCpuCount(8, std::nullopt), 8);
  EXPECT_EQ(UsableCpuCount(8, 16.0), 8);
  EXPECT_EQ(UsableCpuCount(8, 3.9), 3);
  EXPECT_EQ(UsableCpuCount(8, 0.25), 1);
  EXPECT_EQ(UsableCpuCount(1, 64.0), 1);
}

TEST(UsableCpuCountTest, ThisProcessMayUseAtLeastOne) {
  EXPECT_GE(AffinityCpuCount(), 1);
  EXPECT_GE(UsableCpuCount(), 1);
  EXPECT_LE(UsableCpuCount(), AffinityCpuCount());
}

}  // namespace
}  // namespace modelsat
