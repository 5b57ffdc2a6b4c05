// How many CPUs this process may really use: scheduling affinity and cgroup quota, not the socket.

#ifndef MODELSAT_CPU_COUNT_H_
#define MODELSAT_CPU_COUNT_H_

#include <optional>
#include <string>

namespace modelsat {

// CPU time this process may use per unit of time, in CPUs (1.5 = one and a half), as its control
// group and every ancestor of it allow; nothing when no quota is set or there are no control
// groups. Understands cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us over cpu.cfs_period_us).
//
// `filesystem_root` is put in front of /proc/self/... and of the mount points found there; a test
// points it at a folder of its own.
std::optional<double> CgroupCpuQuota(const std::string& filesystem_root = "");

// CPUs in the affinity mask of the calling thread; the number online where there is no such mask.
// At least 1.
int AffinityCpuCount();

// The number of threads that can run at once: the smaller of affinity and quota, the quota rounded
// down (a thread above the quota gets everybody throttled for the rest of the period), never
// below 1.
int UsableCpuCount(int affinity_cpus, std::optional<double> quota_cpus);

// The same for this process, now: affinity and quota may change while it runs.
int UsableCpuCount();

}  // namespace modelsat

#endif  // MODELSAT_CPU_COUNT_H_
