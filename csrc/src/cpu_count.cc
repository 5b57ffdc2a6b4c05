#include "modelsat/cpu_count.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace modelsat {
namespace {

// One line of /proc/self/mountinfo that mounts a cgroup hierarchy which controls CPU time.
struct CgroupMount {
  std::string root;         // the cgroup that is visible at the mount point
  std::string mount_point;  // where the hierarchy can be read
  bool version2 = false;
};

bool HasItem(const std::string& comma_separated, const std::string& wanted) {
  std::istringstream stream(comma_separated);
  for (std::string item; std::getline(stream, item, ',');) {
    if (item == wanted) return true;
  }
  return false;
}

// Line format, proc(5): id parent major:minor root mount_point options [fields...] - type source
// super
std::vector<CgroupMount> ReadCgroupMounts(const std::string& filesystem_root) {
  std::vector<CgroupMount> mounts;
  std::ifstream file(filesystem_root + "/proc/self/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line.substr(0, dash));
    std::istringstream after(line.substr(dash + 3));
    std::string skipped, type, source, super_options;
    CgroupMount mount;
    before >> skipped >> skipped >> skipped >> mount.root >> mount.mount_point;
    after >> type >> source >> super_options;
    mount.version2 = type == "cgroup2";
    if (mount.version2 || (type == "cgroup" && HasItem(super_options, "cpu"))) {
      mounts.push_back(mount);
    }
  }
  return mounts;
}

// The cgroup of this process in the hierarchy, from /proc/self/cgroup ("id:controllers:path", where
// v2 is id 0 with no controllers).
std::optional<std::string> ReadCgroupPath(const std::string& filesystem_root, bool version2) {
  std::ifstream file(filesystem_root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool matches = version2 ? controllers.empty() : HasItem(controllers, "cpu");
    if (matches) return line.substr(second + 1);
  }
  return std::nullopt;
}

std::optional<double> QuotaOfFolder(const std::string& folder, bool version2) {
  std::string quota_text;
  double period_us = 0.0;
  if (version2) {
    std::ifstream(folder + "/cpu.max") >> quota_text >> period_us;
  } else {
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota_text;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period_us;
  }
  double quota_us = 0.0;
  // "max" (v2) and "-1" (v1) mean that there is no quota.
  if (!(std::istringstream(quota_text) >> quota_us) || quota_us <= 0.0 || period_us <= 0.0) {
    return std::nullopt;
  }
  return quota_us / period_us;
}

// `path` as seen below the mount point. A container often sees the host's path although only its
// own part of the hierarchy is mounted; that part begins at `root`.
std::string RelativeTo(const std::string& root, const std::string& path) {
  if (root == "/") return path;
  const bool inside = path.compare(0, root.size(), root) == 0 &&
                      (path.size() == root.size() || path[root.size()] == '/');
  return inside ? path.substr(root.size()) : "";
}

}  // namespace

std::optional<double> CgroupCpuQuota(const std::string& filesystem_root) {
  std::optional<double> smallest;
  for (const CgroupMount& mount : ReadCgroupMounts(filesystem_root)) {
    const std::optional<std::string> path = ReadCgroupPath(filesystem_root, mount.version2);
    if (!path) continue;
    const std::string base = filesystem_root + mount.mount_point;
    std::string below = RelativeTo(mount.root, *path);
    // From the process's own group up to the mount point: the tightest quota on the way is the one
    // that binds.
    for (;;) {
      const std::optional<double> quota = QuotaOfFolder(base + below, mount.version2);
      if (quota) smallest = smallest ? std::min(*smallest, *quota) : *quota;
      const std::size_t slash = below.rfind('/');
      if (slash == std::string::npos) break;
      below.resize(slash);
    }
  }
  return smallest;
}

int AffinityCpuCount() {
#if defined(__linux__)
  // The kernel refuses a mask shorter than its own, so a machine above 1,024 CPUs needs a longer
  // one.
  for (int cpus = CPU_SETSIZE; cpus <= (1 << 20); cpus *= 2) {
    cpu_set_t* mask = CPU_ALLOC(cpus);
    if (mask == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(cpus);
    const bool read = sched_getaffinity(0, bytes, mask) == 0;
    const int count = read ? CPU_COUNT_S(bytes, mask) : 0;
    CPU_FREE(mask);
    if (count > 0) return count;
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int UsableCpuCount(int affinity_cpus, std::optional<double> quota_cpus) {
  int usable = affinity_cpus;
  if (quota_cpus && *quota_cpus < affinity_cpus) usable = static_cast<int>(std::floor(*quota_cpus));
  return std::max(1, usable);
}

int UsableCpuCount() { return UsableCpuCount(AffinityCpuCount(), CgroupCpuQuota()); }

}  // namespace modelsat
