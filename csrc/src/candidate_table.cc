#include "modelsat/candidate_table.h"

#include <utility>

namespace modelsat {

CandidateTable::CandidateTable(std::int32_t num_candidates, std::int32_t hidden_size,
                               std::uint64_t version, std::shared_ptr<const void> payload)
    : num_candidates_(num_candidates),
      hidden_size_(hidden_size),
      version_(version),
      payload_(std::move(payload)) {}

std::string CandidateTable::ToString() const {
  return "candidate table " + std::to_string(version_) + " (" + std::to_string(num_candidates_) +
         " candidates, hidden size " + std::to_string(hidden_size_) + ")";
}

}  // namespace modelsat
