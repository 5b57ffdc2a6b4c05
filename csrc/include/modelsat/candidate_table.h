// One immutable snapshot of the zoo, as the scheduler and the executors share it.

#ifndef MODELSAT_CANDIDATE_TABLE_H_
#define MODELSAT_CANDIDATE_TABLE_H_

#include <cstdint>
#include <memory>
#include <string>

namespace modelsat {

// Adding, replacing or removing a candidate makes a new table. A request keeps the table it was
// admitted with alive until it is answered, and a batch holds requests of one table only, compared
// by address.
class CandidateTable {
 public:
  // `payload` is what the executor reads (inquiry starts, memory keys and values, or a Python
  // object); its type is agreed between the executor and whoever builds the table.
  CandidateTable(std::int32_t num_candidates, std::int32_t hidden_size, std::uint64_t version,
                 std::shared_ptr<const void> payload);
  virtual ~CandidateTable() = default;
  CandidateTable(const CandidateTable&) = delete;
  CandidateTable& operator=(const CandidateTable&) = delete;

  std::int32_t num_candidates() const { return num_candidates_; }  // M
  std::int32_t hidden_size() const { return hidden_size_; }        // D
  std::uint64_t version() const { return version_; }
  const std::shared_ptr<const void>& payload() const { return payload_; }

  // For logs and messages: "candidate table 7 (11 candidates, hidden size 384)".
  std::string ToString() const;

 private:
  const std::int32_t num_candidates_;
  const std::int32_t hidden_size_;
  const std::uint64_t version_;
  const std::shared_ptr<const void> payload_;
};

}  // namespace modelsat

#endif  // MODELSAT_CANDIDATE_TABLE_H_
