// Pending deadlines: constant time to add and to remove, microsecond resolution.

#ifndef MODELSAT_DEADLINE_WHEEL_H_
#define MODELSAT_DEADLINE_WHEEL_H_

#include <array>
#include <cstdint>

#include "modelsat/clock.h"

namespace modelsat {

// Derive from it to stand in a wheel.
class DeadlineNode {
 public:
  std::int64_t deadline_us() const { return deadline_us_; }

 protected:
  explicit DeadlineNode(std::int64_t deadline_us) : deadline_us_(deadline_us) {}
  ~DeadlineNode() = default;

 private:
  friend class DeadlineWheel;
  const std::int64_t deadline_us_;
  DeadlineNode* previous_ = nullptr;
  DeadlineNode* next_ = nullptr;
  std::int8_t level_ = -1;  // -1: in no wheel
  std::int8_t slot_ = 0;
};

// Hierarchical timing wheel (Varghese and Lauck, "Hashed and hierarchical timing wheels", 1987).
// Level l has 64 slots of 64^l microseconds; a node sits in the level of the highest six-bit digit
// in which its deadline differs from the wheel's time, and moves down as time comes closer.
// Nodes are not owned. Not thread-safe.
class DeadlineWheel {
 public:
  // A time no later than the earliest deadline, at which AdvanceTo is due; kNever when empty.
  std::int64_t NextWakeUs() const;

  // The deadline must not be kNever and not before the wheel's time.
  void Insert(DeadlineNode* node, std::int64_t now_us);

  // Does nothing for a node that stands in no wheel.
  void Remove(DeadlineNode* node);

  // Takes out one node whose deadline is at or before `now_us`; nullptr when there is none left.
  // Earlier slots come first.
  DeadlineNode* PopExpired(std::int64_t now_us);

  bool empty() const { return size_ == 0; }
  std::int64_t size() const { return size_; }

 private:
  static constexpr int kNumLevels =
      7;  // 64^7 us are 50 days; later deadlines wait in the top level
  static constexpr int kSlotBits = 6;
  static constexpr int kNumSlots = 1 << kSlotBits;

  struct Slot {
    int level;
    int slot;
    std::int64_t start_us;
  };

  // The first occupied slot; the wheel must not be empty.
  Slot FirstSlot() const;
  void Link(DeadlineNode* node);

  std::int64_t time_us_ = 0;
  std::int64_t size_ = 0;
  std::array<std::uint64_t, kNumLevels> occupied_{};
  std::array<std::array<DeadlineNode*, kNumSlots>, kNumLevels> slots_{};
};

}  // namespace modelsat

#endif  // MODELSAT_DEADLINE_WHEEL_H_
