// One pass of the network: some instructions against all candidates of a zoo.

#ifndef MODELSAT_CPU_FORWARD_H_
#define MODELSAT_CPU_FORWARD_H_

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/model.h"
#include "cpu/workspace.h"
#include "cpu/zoo.h"

namespace modelsat {

// How many instructions, beginning with the first, one pass may take: at least one.
// `cu_seqlens` int32 [instructions + 1]; `most_tokens` bounds the tokens further than `limits`.
int InstructionsOfPass(const std::int32_t* cu_seqlens, int instructions, int most_tokens, int views,
                       const PassLimits& limits);

// The rows of a pass: first those of the instructions, then, for each instruction, those of a block
// of candidates. When the candidates do not fit at once, further blocks run the late layers alone,
// on the keys and values that the first one has left.
class Forward {
 public:
  Forward(const NativeModel& model, const Kernels& kernels, Workspace* workspace)
      : model_(model), kernels_(kernels), workspace_(*workspace) {}

  // Writes float [instructions, M]. `token_ids` int32 [cu_seqlens back - cu_seqlens front], inside
  // the vocabulary; the instructions fit in one pass.
  void Score(const std::int32_t* token_ids, const std::int32_t* cu_seqlens, int instructions,
             const NativeZoo& zoo, float* probabilities);

 private:
  struct RowRange {
    int begin;
    int end;
    int size() const { return end > begin ? end - begin : 0; }
  };

  int TokensBefore(int instruction) const { return cu_seqlens_[instruction] - cu_seqlens_[0]; }
  void Embed(const std::int32_t* token_ids);
  void Project(const PackedLinear& layer, RowRange rows, int column);
  void EarlyLayer(const NativeLayer& layer);
  void StartInquiry();
  void WeighEvidence();
  void LateLayer(int index, bool first_block);
  void AttendLate(int index, bool first_block, bool instruction_rows);
  void Finish(const NativeLayer& layer, RowRange rows);
  void ReadOut(float* probabilities);

  const NativeModel& model_;
  const Kernels& kernels_;
  const Workspace& workspace_;
  const std::int32_t* cu_seqlens_ = nullptr;
  int instructions_ = 0;
  int tokens_ = 0;
  const NativeZoo* zoo_ = nullptr;
  int block_begin_ = 0;  // zoo rows of this block
  int block_rows_ = 0;
};

}  // namespace modelsat

#endif  // MODELSAT_CPU_FORWARD_H_
