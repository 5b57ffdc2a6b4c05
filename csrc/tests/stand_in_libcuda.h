// Controls of the stand-in for NVIDIA's driver; see stand_in_libcuda.cc.

#ifndef MODELSAT_TESTS_STAND_IN_LIBCUDA_H_
#define MODELSAT_TESTS_STAND_IN_LIBCUDA_H_

#include <cstdint>

extern "C" {

// Forgets every call and failure, waits for what is queued, and makes a context current here.
void stand_in_reset();

// From now on `function` gives `result`, and does nothing else; 0 lets it work again.
void stand_in_fail(const char* function, int result);

// While paused, the device works on nothing that is queued.
void stand_in_pause(bool paused);

// Names of the functions called since the last reset but cuEventQuery, with spaces between, cut off
// at `size`.
void stand_in_calls(char* text, int size);

// What cuGraphLaunch takes: a pass over `tokens` and `requests` whose candidates are the floats at
// `candidates`. Probability (b, m) is candidates[m] * StandInShare(instruction b), -1 where padding
// is wrong. Never freed.
void* stand_in_graph(const std::int32_t* inputs, float* scores, const float* candidates,
                     std::int32_t requests, std::int32_t tokens, std::int32_t room);

// The same for a pass that is somebody else's function.
void* stand_in_callback(void (*run)());
}

namespace modelsat {

// Between 0 and 1, of an instruction's tokens and their positions.
inline float StandInShare(const std::int32_t* token_ids, std::int32_t count) {
  std::int64_t sum = 0;
  for (std::int32_t t = 0; t < count; ++t) sum += (std::int64_t{token_ids[t]} + 1) * (t + 1);
  return static_cast<float>(1 + sum % 97) / 98;
}

}  // namespace modelsat

#endif  // MODELSAT_TESTS_STAND_IN_LIBCUDA_H_
