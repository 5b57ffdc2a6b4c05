#include "modelsat/batch.h"

#include <gtest/gtest.h>

namespace modelsat {
namespace {

TEST(BatchTest, AnEmptyBatchIsValid) {
  EXPECT_TRUE(Batch().Validate().ok());
  EXPECT_EQ(Batch().num_requests(), 0);
}

TEST(BatchTest, AppendCopiesARangeOfInstructions) {
  const Batch source({1, 2, 3, 4, 5, 6}, {0, 1, 3, 6});
  Batch batch({9}, {0, 1});
  batch.Append(source, 1, 2);
  EXPECT_EQ(batch.token_ids(), (std::vector<std::int32_t>{9, 2, 3, 4, 5, 6}));
  EXPECT_EQ(batch.cu_seqlens(), (std::vector<std::int32_t>{0, 1, 3, 6}));
  EXPECT_EQ(batch.TokensOf(1, 2), 5);
  EXPECT_TRUE(batch.Validate().ok());
}

TEST(BatchTest, ValidateRefusesMalformedInput) {
  const Batch bad[] = {
      Batch({1, 2}, {}),         Batch({1, 2}, {1, 2}),    Batch({1, 2}, {0, 1}),
      Batch({1, 2}, {0, 3}),     Batch({1, 2}, {0, 0, 2}), Batch({1, 2, 3}, {0, 2, 1, 3}),
      Batch({1, -2}, {0, 1, 2}),
  };
  for (const Batch& batch : bad) {
    const Status status = batch.Validate();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.ToString();
  }
}

}  // namespace
}  // namespace modelsat
