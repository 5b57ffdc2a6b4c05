#include "modelsat/deadline_wheel.h"

#include <algorithm>
#include <cassert>

namespace modelsat {
namespace {

int LowestBit(std::uint64_t bits) {
#if defined(__GNUC__)
  return __builtin_ctzll(bits);
#else
  int bit = 0;
  while (!((bits >> bit) & 1)) ++bit;
  return bit;
#endif
}

}  // namespace

DeadlineWheel::Slot DeadlineWheel::FirstSlot() const {
  assert(size_ > 0);
  // A lower level ends where the next slot of the level above starts, so its slots come first.
  for (int level = 0; level < kNumLevels; ++level) {
    if (occupied_[level] == 0) continue;
    const int shift = level * kSlotBits;
    const int now_slot = static_cast<int>(time_us_ >> shift) & (kNumSlots - 1);
    // Only the top level wraps around.
    const std::uint64_t ahead = occupied_[level] >> now_slot;
    const int slot = ahead != 0 ? now_slot + LowestBit(ahead) : LowestBit(occupied_[level]);
    std::int64_t start_us = ((time_us_ >> shift) - now_slot + slot) << shift;
    if (ahead == 0) start_us += std::int64_t{kNumSlots} << shift;
    return {level, slot, start_us};
  }
  return {0, 0, time_us_};
}

std::int64_t DeadlineWheel::NextWakeUs() const {
  return size_ == 0 ? kNever : std::max(FirstSlot().start_us, time_us_);
}

void DeadlineWheel::Link(DeadlineNode* node) {
  // A deadline beyond the top level waits in its last slot and is looked at again from there.
  constexpr std::int64_t kSpanUs = std::int64_t{kNumSlots - 1} << ((kNumLevels - 1) * kSlotBits);
  const std::int64_t deadline_us = std::clamp(node->deadline_us_, time_us_, time_us_ + kSpanUs);
  int level = 0;
  for (std::uint64_t digits = static_cast<std::uint64_t>(deadline_us ^ time_us_) >> kSlotBits;
       digits != 0 && level < kNumLevels - 1; digits >>= kSlotBits) {
    ++level;
  }
  const int slot = static_cast<int>(deadline_us >> (level * kSlotBits)) & (kNumSlots - 1);
  DeadlineNode*& head = slots_[level][slot];
  node->level_ = static_cast<std::int8_t>(level);
  node->slot_ = static_cast<std::int8_t>(slot);
  node->previous_ = nullptr;
  node->next_ = head;
  if (head != nullptr) head->previous_ = node;
  head = node;
  occupied_[level] |= std::uint64_t{1} << slot;
  ++size_;
}

void DeadlineWheel::Insert(DeadlineNode* node, std::int64_t now_us) {
  assert(node->level_ < 0 && node->deadline_us_ != kNever);
  if (size_ == 0) time_us_ = std::max(time_us_, now_us);
  Link(node);
}

void DeadlineWheel::Remove(DeadlineNode* node) {
  if (node->level_ < 0) return;
  if (node->next_ != nullptr) node->next_->previous_ = node->previous_;
  if (node->previous_ != nullptr) {
    node->previous_->next_ = node->next_;
  } else {
    slots_[node->level_][node->slot_] = node->next_;
    if (node->next_ == nullptr) occupied_[node->level_] &= ~(std::uint64_t{1} << node->slot_);
  }
  node->level_ = -1;
  --size_;
}

DeadlineNode* DeadlineWheel::PopExpired(std::int64_t now_us) {
  while (size_ > 0) {
    const Slot first = FirstSlot();
    if (first.start_us > now_us) break;
    time_us_ = std::max(time_us_, first.start_us);
    DeadlineNode* node = slots_[first.level][first.slot];
    if (first.level == 0) {
      Remove(node);
      return node;
    }
    while (node != nullptr) {  // the whole slot moves down: lower levels must stay the earlier ones
      DeadlineNode* const next = node->next_;
      Remove(node);
      Link(node);
      node = next;
    }
  }
  time_us_ = std::max(time_us_, now_us);
  return nullptr;
}

}  // namespace modelsat
