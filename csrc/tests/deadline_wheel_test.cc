#include "modelsat/deadline_wheel.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>

namespace modelsat {
namespace {

class Node : public DeadlineNode {
 public:
  explicit Node(std::int64_t deadline_us) : DeadlineNode(deadline_us) {}
};

TEST(DeadlineWheelTest, AnEmptyWheelNeverWakes) {
  DeadlineWheel wheel;
  EXPECT_EQ(wheel.NextWakeUs(), kNever);
  EXPECT_EQ(wheel.PopExpired(123456789), nullptr);
}

TEST(DeadlineWheelTest, ANodeExpiresAtItsMicrosecondAndNotBefore) {
  for (const std::int64_t deadline_us : {1, 63, 64, 65, 4095, 4096, 1000003, 987654321}) {
    DeadlineWheel wheel;
    Node node(17 + deadline_us);
    wheel.Insert(&node, 17);
    EXPECT_EQ(wheel.PopExpired(17 + deadline_us - 1), nullptr) << deadline_us;
    EXPECT_EQ(wheel.PopExpired(17 + deadline_us), &node) << deadline_us;
    EXPECT_TRUE(wheel.empty());
  }
}

TEST(DeadlineWheelTest, WakingWhenAskedReachesADeadlineInFewSteps) {
  DeadlineWheel wheel;
  Node node(5'000'000'011);
  wheel.Insert(&node, 3);
  int wakes = 0;
  while (wheel.PopExpired(wheel.NextWakeUs()) == nullptr) ++wakes;
  EXPECT_LE(wakes, 7);
}

TEST(DeadlineWheelTest, DeadlinesBeyondTheTopLevelWait) {
  const std::int64_t year_us = std::int64_t{365} * 24 * 3600 * 1'000'000;
  DeadlineWheel wheel;
  Node far(10 * year_us + 7), near(13);
  wheel.Insert(&far, 5);
  wheel.Insert(&near, 5);
  EXPECT_EQ(wheel.PopExpired(13), &near);
  EXPECT_EQ(wheel.PopExpired(year_us), nullptr);
  EXPECT_EQ(wheel.PopExpired(10 * year_us + 6), nullptr);
  EXPECT_EQ(wheel.PopExpired(10 * year_us + 7), &far);
}

TEST(DeadlineWheelTest, RemovingTwiceOrWithoutInsertingDoesNothing) {
  DeadlineWheel wheel;
  Node node(99);
  wheel.Remove(&node);
  wheel.Insert(&node, 1);
  wheel.Remove(&node);
  wheel.Remove(&node);
  EXPECT_TRUE(wheel.empty());
  EXPECT_EQ(wheel.PopExpired(100), nullptr);
}

TEST(DeadlineWheelTest, AgreesWithASortedMapUnderRandomUse) {
  const auto seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  DeadlineWheel wheel;
  std::deque<Node> nodes;
  std::multimap<std::int64_t, Node*> pending;
  std::int64_t now_us = 0;
  for (int step = 0; step < 50'000; ++step) {
    const int what = static_cast<int>(random() % 10);
    if (what < 5) {
      const int magnitude = static_cast<int>(random() % 44);
      const std::int64_t deadline_us =
          now_us + 1 + static_cast<std::int64_t>(random() % (std::uint64_t{1} << magnitude));
      nodes.emplace_back(deadline_us);
      wheel.Insert(&nodes.back(), now_us);
      pending.emplace(deadline_us, &nodes.back());
    } else if (what < 7 && !pending.empty()) {
      auto entry = pending.lower_bound(now_us + static_cast<std::int64_t>(random() % 100'000));
      if (entry == pending.end()) entry = pending.begin();
      wheel.Remove(entry->second);
      pending.erase(entry);
    } else {
      now_us += static_cast<std::int64_t>(random() % (std::uint64_t{1} << (random() % 40)));
      while (DeadlineNode* node = wheel.PopExpired(now_us)) {
        auto entry = pending.find(node->deadline_us());
        while (entry != pending.end() && entry->second != node) ++entry;
        ASSERT_NE(entry, pending.end());
        ASSERT_LE(node->deadline_us(), now_us);
        pending.erase(entry);
      }
      if (!pending.empty()) {
        ASSERT_GT(pending.begin()->first, now_us);
      }
    }
    ASSERT_EQ(wheel.size(), static_cast<std::int64_t>(pending.size()));
    if (!pending.empty()) {
      ASSERT_LE(wheel.NextWakeUs(), pending.begin()->first);
    }
  }
}

}  // namespace
}  // namespace modelsat
