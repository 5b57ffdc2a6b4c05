// The token ids of several instructions back to back, without padding.

#ifndef MODELSAT_BATCH_H_
#define MODELSAT_BATCH_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "modelsat/status.h"

namespace modelsat {

// Instruction i owns token_ids[cu_seqlens[i] .. cu_seqlens[i + 1]).
//
// The scheduler hands an executor a Batch that a shared_ptr owns: an executor that must keep the
// memory longer than its Score call takes shared_from_this().
class Batch : public std::enable_shared_from_this<Batch> {
 public:
  // An empty batch; Append fills it.
  Batch() : cu_seqlens_{0} {}

  // token_ids int32 [T], cu_seqlens int32 [B + 1], to be checked by Validate. Without cu_seqlens
  // there are no instructions.
  Batch(std::vector<std::int32_t> token_ids, std::vector<std::int32_t> cu_seqlens)
      : token_ids_(std::move(token_ids)), cu_seqlens_(std::move(cu_seqlens)) {
    if (cu_seqlens_.empty()) cu_seqlens_.push_back(0);
  }

  std::int32_t num_requests() const { return static_cast<std::int32_t>(cu_seqlens_.size()) - 1; }
  std::int32_t num_tokens() const { return cu_seqlens_.back(); }
  const std::vector<std::int32_t>& token_ids() const { return token_ids_; }    // [T]
  const std::vector<std::int32_t>& cu_seqlens() const { return cu_seqlens_; }  // [B + 1]

  // Number of tokens of instructions first .. first + count - 1.
  std::int32_t TokensOf(std::int32_t first, std::int32_t count) const {
    return cu_seqlens_[first + count] - cu_seqlens_[first];
  }

  void Reserve(std::int32_t num_requests, std::int32_t num_tokens);

  // Copies instructions first .. first + count - 1 of `source` to the end of this batch.
  void Append(const Batch& source, std::int32_t first, std::int32_t count);

  // kInvalidArgument unless cu_seqlens starts at 0, increases strictly (an instruction has at least
  // one token) and ends at the number of token ids, and no token id is negative.
  Status Validate() const;

  // kInvalidArgument when an instruction has no token or more than `longest`, or when a token id is
  // not below `vocabulary`. For a batch that is valid.
  Status CheckTokens(std::int32_t longest, std::int32_t vocabulary) const;

 private:
  std::vector<std::int32_t> token_ids_;
  std::vector<std::int32_t> cu_seqlens_;
};

}  // namespace modelsat

#endif  // MODELSAT_BATCH_H_
