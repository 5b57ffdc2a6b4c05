#include "stats_as_dict.h"

#include <array>

namespace py = pybind11;

namespace modelsat {
namespace {

py::dict HistogramAsDict(const Histogram& histogram) {
  py::dict out;
  out["count"] = histogram.count();
  out["sum"] = histogram.sum();
  out["max"] = histogram.max();
  out["p50"] = histogram.Quantile(0.5);
  out["p90"] = histogram.Quantile(0.9);
  out["p99"] = histogram.Quantile(0.99);
  py::list buckets;  // (largest value of the bucket, count), without empty buckets
  for (int i = 0; i < Histogram::kNumBuckets; ++i) {
    if (histogram.buckets()[i] == 0) continue;
    buckets.append(py::make_tuple(Histogram::UpperBound(i), histogram.buckets()[i]));
  }
  out["buckets"] = buckets;
  return out;
}

}  // namespace

py::dict StatsAsDict(const SchedulerStats& stats) {
  const auto by_code = [](const std::array<std::int64_t, kNumStatusCodes>& counts) {
    py::dict out;
    for (int code = 0; code < kNumStatusCodes; ++code) {
      out[StatusCodeName(static_cast<StatusCode>(code))] = counts[code];
    }
    return out;
  };
  py::dict out;
  out["queued_requests"] = stats.queued_requests;
  out["queued_tokens"] = stats.queued_tokens;
  out["prefetched_requests"] = stats.prefetched_requests;
  out["executing_requests"] = stats.executing_requests;
  out["unanswered_submissions"] = stats.unanswered_submissions;
  out["accepted"] = stats.accepted;
  out["accepted_tokens"] = stats.accepted_tokens;
  out["rejected"] = by_code(stats.rejected);
  out["answered"] = by_code(stats.answered);
  out["cancelled"] = stats.answered[static_cast<int>(StatusCode::kCancelled)];
  out["late"] = stats.late_in_queue + stats.late_in_execution;
  out["late_in_queue"] = stats.late_in_queue;
  out["late_in_execution"] = stats.late_in_execution;
  out["batches"] = stats.batches;
  out["failed_batches"] = stats.failed_batches;
  out["batch_requests"] = HistogramAsDict(stats.batch_requests);
  out["batch_tokens"] = HistogramAsDict(stats.batch_tokens);
  out["batch_fill_percent"] = HistogramAsDict(stats.batch_fill_percent);
  out["queue_us"] = HistogramAsDict(stats.queue_us);
  out["execute_us"] = HistogramAsDict(stats.execute_us);
  return out;
}

}  // namespace modelsat
