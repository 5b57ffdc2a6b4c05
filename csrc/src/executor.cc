#include "modelsat/executor.h"

#include <algorithm>
#include <cstddef>

namespace modelsat {

Status NoOpExecutor::Score(const Batch& batch, const CandidateTable& table, float* probabilities) {
  const std::size_t size = static_cast<std::size_t>(batch.num_requests()) * table.num_candidates();
  std::fill_n(probabilities, size, 0.0f);
  return Status();
}

}  // namespace modelsat
