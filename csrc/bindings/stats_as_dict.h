// The scheduler's statistics as Python's json can write them.

#ifndef MODELSAT_BINDINGS_STATS_AS_DICT_H_
#define MODELSAT_BINDINGS_STATS_AS_DICT_H_

#include <pybind11/pybind11.h>

#include "modelsat/stats.h"

namespace modelsat {

// Counts by name; a histogram is a dict of count, sum, max, p50, p90, p99 and buckets, the
// (largest value, count) of those that are not empty. Call with the GIL.
pybind11::dict StatsAsDict(const SchedulerStats& stats);

}  // namespace modelsat

#endif  // MODELSAT_BINDINGS_STATS_AS_DICT_H_
