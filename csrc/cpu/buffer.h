// Memory for weights and activations: aligned, zeroed, in large pages where the system has them.

#ifndef MODELSAT_CPU_BUFFER_H_
#define MODELSAT_CPU_BUFFER_H_

#include <cstddef>
#include <memory>
#include <new>
#include <vector>

namespace modelsat {

// A block that starts on a large page and asks for large pages: ten megabytes of packed weights are
// more 4 KB pages than the processor keeps the addresses of. Meant for a few big blocks.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);

  std::size_t size() const { return size_; }

  template <typename T>
  T* at(std::size_t offset_bytes) const {
    return reinterpret_cast<T*>(memory_.get() + offset_bytes);
  }

 private:
  struct Free {
    void operator()(char* memory) const;
  };
  std::unique_ptr<char, Free> memory_;
  std::size_t size_ = 0;
};

// A vector that starts on a cache line, so that no load of 64 bytes touches two.
template <typename T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <typename U>
  LineAllocator(const LineAllocator<U>&) {
  }  // NOLINT: conversions are what allocators are asked for
  T* allocate(std::size_t count) {
    return static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t{64}));
  }
  void deallocate(T* memory, std::size_t) { ::operator delete(memory, std::align_val_t{64}); }
  bool operator==(const LineAllocator&) const { return true; }
  bool operator!=(const LineAllocator&) const { return false; }
};
template <typename T>
using LineVector = std::vector<T, LineAllocator<T>>;

// Places of several arrays in one Buffer: reserve them all, make the buffer, then ask for them.
class Layout {
 public:
  template <typename T>
  std::size_t Reserve(std::size_t count) {
    const std::size_t offset = bytes_;
    bytes_ += (count * sizeof(T) + kLine - 1) / kLine * kLine;
    return offset;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kLine = 64;
  std::size_t bytes_ = 0;
};

}  // namespace modelsat

#endif  // MODELSAT_CPU_BUFFER_H_
