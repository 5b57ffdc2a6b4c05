#include "cpu/buffer.h"

#include <cstring>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace modelsat {
namespace {

constexpr std::size_t kLargePage = std::size_t{2} << 20;

}  // namespace

Buffer::Buffer(std::size_t bytes) : size_(bytes) {
  memory_.reset(static_cast<char*>(::operator new(bytes, std::align_val_t{kLargePage})));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  // Whole large pages only, so that the neighbours on the heap keep theirs. A wish, not a demand.
  madvise(memory_.get(), bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
#endif
  std::memset(memory_.get(), 0, bytes);
}

void Buffer::Free::operator()(char* memory) const {
  ::operator delete(memory, std::align_val_t{kLargePage});
}

}  // namespace modelsat
