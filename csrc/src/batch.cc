#include "modelsat/batch.h"

#include <algorithm>
#include <limits>
#include <string>

namespace modelsat {

void Batch::Reserve(std::int32_t num_requests, std::int32_t num_tokens) {
  token_ids_.reserve(num_tokens);
  cu_seqlens_.reserve(num_requests + 1);
}

void Batch::Append(const Batch& source, std::int32_t first, std::int32_t count) {
  const std::int32_t begin = source.cu_seqlens_[first];
  const std::int32_t shift = num_tokens() - begin;
  token_ids_.insert(token_ids_.end(), source.token_ids_.begin() + begin,
                    source.token_ids_.begin() + source.cu_seqlens_[first + count]);
  for (std::int32_t i = first + 1; i <= first + count; ++i) {
    cu_seqlens_.push_back(source.cu_seqlens_[i] + shift);
  }
}

Status Batch::Validate() const {
  const auto invalid = [](const std::string& message) {
    return Status(StatusCode::kInvalidArgument, message);
  };
  if (token_ids_.size() > std::numeric_limits<std::int32_t>::max()) {
    return invalid("token_ids holds more than 2^31 - 1 tokens; score the instructions in parts");
  }
  if (cu_seqlens_.empty() || cu_seqlens_.front() != 0) {
    return invalid("cu_seqlens must start with 0");
  }
  for (std::size_t i = 1; i < cu_seqlens_.size(); ++i) {
    if (cu_seqlens_[i] <= cu_seqlens_[i - 1]) {
      return invalid("cu_seqlens must increase: instruction " + std::to_string(i - 1) + " has " +
                     std::to_string(std::int64_t{cu_seqlens_[i]} - cu_seqlens_[i - 1]) +
                     " tokens, at least 1 is needed");
    }
  }
  if (static_cast<std::size_t>(cu_seqlens_.back()) != token_ids_.size()) {
    return invalid("cu_seqlens ends at " + std::to_string(cu_seqlens_.back()) + " but there are " +
                   std::to_string(token_ids_.size()) + " token ids");
  }
  const auto negative = std::find_if(token_ids_.begin(), token_ids_.end(),
                                     [](std::int32_t token_id) { return token_id < 0; });
  if (negative != token_ids_.end()) {
    return invalid("token id " + std::to_string(*negative) + " at position " +
                   std::to_string(negative - token_ids_.begin()) + " is negative");
  }
  return Status();
}

Status Batch::CheckTokens(std::int32_t longest, std::int32_t vocabulary) const {
  const auto invalid = [](const std::string& message) {
    return Status(StatusCode::kInvalidArgument, message);
  };
  for (std::int32_t b = 0; b < num_requests(); ++b) {
    const std::int32_t tokens = TokensOf(b, 1);
    if (tokens < 1 || tokens > longest) {
      return invalid("instruction " + std::to_string(b) + " has " + std::to_string(tokens) +
                     " tokens, must have 1 to " + std::to_string(longest));
    }
  }
  for (const std::int32_t token : token_ids_) {
    if (token < 0 || token >= vocabulary) {
      return invalid("token id " + std::to_string(token) + " is not in the vocabulary of " +
                     std::to_string(vocabulary) + "; use the bundle's tokenizer");
    }
  }
  return Status();
}

}  // namespace modelsat
