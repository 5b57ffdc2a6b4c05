#include <utility>

#include "scheduler_state.h"

namespace modelsat {

void FormingBatch::Add(Slice slice) {
  table = slice.submission->table();
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
