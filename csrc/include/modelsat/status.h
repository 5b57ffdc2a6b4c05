// What became of a request, as a value: the scheduler throws neither for load nor for bad input.

#ifndef MODELSAT_STATUS_H_
#define MODELSAT_STATUS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

namespace modelsat {

enum class StatusCode : std::uint8_t {
  kOk,
  kOverloaded,        // the queue is full; another attempt later may succeed
  kDeadlineExceeded,  // the deadline passed before the answer was there
  kTooLarge,          // over a bound that no waiting will lift
  kShuttingDown,      // the scheduler is draining or closed
  kCancelled,         // the caller no longer wants the answer
  kInvalidArgument,   // malformed input, such as decreasing cu_seqlens
  kExecutorError,     // the executor failed on the batch that held the request
  kForked,            // the process was forked and the scheduler's threads stayed in the parent
};

inline constexpr int kNumStatusCodes = 9;

// Lower-case name of a code, such as "deadline_exceeded": the key used in statistics.
const char* StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // Ok
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {}

  // `detail` is an opaque cause, such as the exception of a Python executor.
  Status(StatusCode code, std::string message, std::shared_ptr<const void> detail)
      : code_(code), message_(std::move(message)), detail_(std::move(detail)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::shared_ptr<const void>& detail() const { return detail_; }

  std::string ToString() const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
  std::shared_ptr<const void> detail_;
};

}  // namespace modelsat

#endif  // MODELSAT_STATUS_H_
