#include <algorithm>
#include <utility>

#include "scheduler_state.h"

namespace modelsat {

std::int64_t FormingBatch::num_rows() const {
  if (table == nullptr) return 0;
  return num_tokens + std::int64_t{num_requests} * table->num_candidates();
}

void FormingBatch::Add(Slice slice) {
  table = slice.submission->table();
  deadline_us = std::min(deadline_us, slice.submission->options().deadline_us);
  num_requests += slice.count;
  num_tokens += slice.submission->requests().TokensOf(slice.first, slice.count);
  slices.push_back(std::move(slice));
}

void FormingBatch::Pack() {
  if (packed == nullptr) packed = std::make_shared<Batch>();
  packed->Reserve(num_requests, num_tokens);
  for (; num_packed_slices < slices.size(); ++num_packed_slices) {
    const Slice& slice = slices[num_packed_slices];
    packed->Append(slice.submission->requests(), slice.first, slice.count);
  }
}

}  // namespace modelsat
