// BatchScheduler, Submission and CandidateTable in Python: convert, release the GIL, call, raise.

#include "modelsat/scheduler.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "async_delivery.h"
#include "bindings.h"
#include "python_executor.h"
#include "python_objects.h"
#include "stats_as_dict.h"

namespace py = pybind11;

namespace modelsat {
namespace {

constexpr std::int64_t kSignalCheckUs = 100'000;  // how long Ctrl-C may go unnoticed in a wait

std::vector<std::int32_t> CopyInt32(const py::array& array, const char* name) {
  if (array.ndim() != 1 || !py::isinstance<py::array_t<std::int32_t>>(array)) {
    throw py::type_error(std::string(name) + " must be a one-dimensional int32 array, not " +
                         py::cast<std::string>(py::str(array.dtype())) + " of " +
                         std::to_string(array.ndim()) + " dimensions");
  }
  const auto contiguous = py::array_t<std::int32_t, py::array::c_style>::ensure(array);
  return std::vector<std::int32_t>(contiguous.data(), contiguous.data() + contiguous.size());
}

Batch CopyBatch(const py::array& token_ids, const std::optional<py::array>& cu_seqlens) {
  std::vector<std::int32_t> tokens = CopyInt32(token_ids, "token_ids");
  std::vector<std::int32_t> offsets{0, static_cast<std::int32_t>(tokens.size())};
  if (cu_seqlens.has_value()) offsets = CopyInt32(*cu_seqlens, "cu_seqlens");
  return Batch(std::move(tokens), std::move(offsets));
}

class PythonScheduler {
 public:
  PythonScheduler(std::shared_ptr<Executor> executor, const SchedulerOptions& options)
      : scheduler_(std::make_shared<BatchScheduler>(std::move(executor), options)),
        delivery_(std::make_shared<AsyncDelivery>()) {
    delivery_->Start();
  }

  ~PythonScheduler() { Close(); }

  // Also for a caller without the GIL.
  void Close() {
    std::optional<GilRelease> release;
    if (PyGILState_Check()) release.emplace();
    scheduler_->Close();
    delivery_->Stop();
  }

  bool Drain(std::optional<double> timeout_s) {
    const GilRelease release;
    return scheduler_->Drain(timeout_s.has_value() ? scheduler_->clock()->NowUs() +
                                                         static_cast<std::int64_t>(*timeout_s * 1e6)
                                                   : kNever);
  }

  std::shared_ptr<PythonSubmission> Score(const py::array& token_ids,
                                          const std::optional<py::array>& cu_seqlens,
                                          std::shared_ptr<CandidateTable> table,
                                          std::optional<std::int64_t> deadline_us, int priority) {
    const auto submission =
        Make(token_ids, cu_seqlens, std::move(table), deadline_us, priority, nullptr);
    Status status;
    bool interrupted = false;
    {
      const GilRelease release;
      status = scheduler_->Submit(submission);
      while (status.ok() && !interrupted && !submission->WaitForUs(kSignalCheckUs)) {
        py::gil_scoped_acquire acquire;
        interrupted = PyErr_CheckSignals() != 0;
      }
      if (interrupted) scheduler_->Cancel(submission);
    }
    if (interrupted) throw py::error_already_set();
    RaiseUnlessOk(status.ok() ? submission->status() : status);
    return submission;
  }

  std::shared_ptr<PythonSubmission> Submit(const py::array& token_ids,
                                           const std::optional<py::array>& cu_seqlens,
                                           std::shared_ptr<CandidateTable> table,
                                           std::optional<std::int64_t> deadline_us, int priority,
                                           py::object callback) {
    const auto submission = Make(token_ids, cu_seqlens, std::move(table), deadline_us, priority,
                                 callback.is_none() ? nullptr : delivery_);
    submission->callback = Hold(std::move(callback));
    Enqueue(submission);
    return submission;
  }

  py::object ScoreAsync(const py::array& token_ids, const std::optional<py::array>& cu_seqlens,
                        std::shared_ptr<CandidateTable> table,
                        std::optional<std::int64_t> deadline_us, int priority) {
    const py::object loop = py::module_::import("asyncio").attr("get_running_loop")();
    const auto submission =
        Make(token_ids, cu_seqlens, std::move(table), deadline_us, priority, delivery_);
    const py::object future = loop.attr("create_future")();
    submission->loop = Hold(loop);
    submission->future = Hold(future);
    Enqueue(submission);
    future.attr("add_done_callback")(py::cpp_function([submission](const py::object& done) {
      if (py::cast<bool>(done.attr("cancelled")())) Cancel(*submission, submission);
    }));
    return future;
  }

  static bool Cancel(const PythonSubmission& of, const std::shared_ptr<PythonSubmission>& what) {
    const auto scheduler = of.scheduler.lock();
    return scheduler != nullptr && scheduler->Cancel(what);
  }

  // Returns the exception instead of throwing it: a refusal under load should cost little, and a
  // C++ exception that has to be looked up in cold tables costs more than all the rest.
  py::object Ask(std::int32_t num_requests, std::int32_t num_candidates,
                 std::optional<std::int64_t> deadline_us, int priority) {
    const Status status =
        scheduler_->Ask(num_requests, num_candidates, priority, AbsoluteUs(deadline_us));
    return status.ok() ? py::none() : MakeException(status);
  }

  SchedulerStats Stats() const { return scheduler_->Stats(); }
  const ExecutorLimits& limits() const { return scheduler_->limits(); }

 private:
  std::shared_ptr<PythonSubmission> Make(const py::array& token_ids,
                                         const std::optional<py::array>& cu_seqlens,
                                         std::shared_ptr<CandidateTable> table,
                                         std::optional<std::int64_t> deadline_us, int priority,
                                         std::shared_ptr<CompletionSink> sink) {
    ReleaseDeferred();
    SubmitOptions options;
    options.priority = priority;
    options.sink = std::move(sink);
    options.deadline_us = AbsoluteUs(deadline_us);
    auto submission = std::make_shared<PythonSubmission>(CopyBatch(token_ids, cu_seqlens),
                                                         std::move(table), std::move(options));
    submission->scheduler = scheduler_;
    return submission;
  }

  // A time from now in the scheduler's clock; none is never.
  std::int64_t AbsoluteUs(std::optional<std::int64_t> from_now_us) const {
    if (!from_now_us.has_value()) return kNever;
    const std::int64_t now_us = scheduler_->clock()->NowUs();
    return *from_now_us >= kNever - now_us ? kNever : now_us + *from_now_us;
  }

  // Keeps the GIL: Submit takes a microsecond and never blocks, getting the GIL back may take 5 ms.
  void Enqueue(const std::shared_ptr<PythonSubmission>& submission) {
    RaiseUnlessOk(scheduler_->Submit(submission));
  }

  const std::shared_ptr<BatchScheduler> scheduler_;
  const std::shared_ptr<AsyncDelivery> delivery_;
};

// Schedulers that are open when the interpreter ends; closed by a function registered with atexit.
struct Registry {
  Mutex mutex;
  std::vector<std::weak_ptr<PythonScheduler>> schedulers MODELSAT_GUARDED_BY(mutex);
};

Registry& TheRegistry() {
  static Registry* const registry = std::make_unique<Registry>().release();
  return *registry;
}

void CloseAll() {
  std::vector<std::weak_ptr<PythonScheduler>> schedulers;
  {
    MutexLock lock(&TheRegistry().mutex);
    schedulers.swap(TheRegistry().schedulers);
  }
  for (const auto& scheduler : schedulers) {
    if (const auto open = scheduler.lock()) open->Close();
  }
}

std::shared_ptr<PythonScheduler> MakeScheduler(py::object executor, std::int32_t max_batch_requests,
                                               std::int32_t max_batch_tokens,
                                               std::int32_t max_instruction_tokens,
                                               std::int32_t max_queue_requests,
                                               std::int64_t max_queue_tokens,
                                               std::int64_t ageing_us, double deadline_margin) {
  if (max_batch_requests < 1 || max_batch_tokens < 1 || max_instruction_tokens < 1 ||
      max_queue_requests < 1 || max_queue_tokens < 1) {
    throw py::value_error("the bounds of batches, instructions and the queue must be at least 1");
  }
  constexpr std::int64_t kDayUs = std::int64_t{24} * 3600 * 1'000'000;
  if (ageing_us < 0 || ageing_us > kDayUs) {
    throw py::value_error("ageing_us must be between 0 and one day");
  }
  if (!(deadline_margin >= 0 && deadline_margin <= 1000)) {
    throw py::value_error("deadline_margin must be between 0 and 1000");
  }
  SchedulerOptions options;
  options.deadline_margin = deadline_margin;
  options.max_batch_requests = max_batch_requests;
  options.max_batch_tokens = max_batch_tokens;
  options.max_queue_requests = max_queue_requests;
  options.max_queue_tokens = max_queue_tokens;
  options.ageing_us = ageing_us;
  std::shared_ptr<Executor> native;
  if (py::isinstance<Executor>(executor)) {
    native = py::cast<std::shared_ptr<Executor>>(executor);
  } else if (PyCallable_Check(executor.ptr())) {
    native = std::make_shared<PythonExecutor>(
        std::move(executor),
        ExecutorLimits{max_batch_requests, max_batch_tokens, max_instruction_tokens});
  } else {
    throw py::type_error("executor must be callable or an Executor of this module");
  }
  auto scheduler = std::make_shared<PythonScheduler>(std::move(native), options);
  MutexLock lock(&TheRegistry().mutex);
  auto& schedulers = TheRegistry().schedulers;
  schedulers.erase(std::remove_if(schedulers.begin(), schedulers.end(),
                                  [](const auto& other) { return other.expired(); }),
                   schedulers.end());
  schedulers.push_back(scheduler);
  return scheduler;
}

// ------------------------------------------------------------------------------------- Results

void RequireDone(const Submission& submission) {
  if (!submission.done()) throw std::runtime_error("not answered yet: call wait() or result()");
}

py::array Probabilities(const std::shared_ptr<PythonSubmission>& submission) {
  RequireDone(*submission);
  const py::ssize_t rows = submission->num_requests();
  const py::ssize_t columns = submission->table()->num_candidates();
  const py::ssize_t size = sizeof(float);
  // The base keeps the submission alive: no copy.
  return py::array_t<float>({rows, columns}, {columns * size, size},
                            submission->probabilities().data(), py::cast(submission));
}

template <typename Field>
py::array_t<std::int64_t> Times(const Submission& submission, Field field) {
  RequireDone(submission);
  py::array_t<std::int64_t> times(submission.num_requests());
  std::int64_t* const out = times.mutable_data();
  for (std::int32_t i = 0; i < submission.num_requests(); ++i) out[i] = submission.answer(i).*field;
  return times;
}

py::list Statuses(const PythonSubmission& submission) {
  RequireDone(submission);
  py::list names;
  for (std::int32_t i = 0; i < submission.num_requests(); ++i) {
    names.append(StatusCodeName(submission.answer(i).code));
  }
  return names;
}

bool WaitFor(const std::shared_ptr<PythonSubmission>& submission, std::optional<double> timeout_s) {
  if (submission->done()) return true;
  const GilRelease release;
  Clock* const clock = RealClock::Get();
  const std::int64_t end_us =
      timeout_s.has_value() ? clock->NowUs() + static_cast<std::int64_t>(*timeout_s * 1e6) : kNever;
  for (;;) {
    const std::int64_t left_us = end_us - clock->NowUs();
    if (submission->WaitForUs(std::min(left_us, kSignalCheckUs))) return true;
    if (left_us <= 0) return false;
    py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

std::shared_ptr<CandidateTable> MakeTable(py::object payload, std::int32_t num_candidates,
                                          std::int32_t hidden_size, std::uint64_t version) {
  if (num_candidates < 0) throw py::value_error("num_candidates must not be negative");
  return std::make_shared<CandidateTable>(num_candidates, hidden_size, version,
                                          Hold(std::move(payload)));
}

}  // namespace
}  // namespace modelsat

void bind_scheduler(py::module_& m) {
  using namespace modelsat;  // NOLINT: one function, and every name below is from it

  py::class_<CandidateTable, std::shared_ptr<CandidateTable>>(
      m, "CandidateTable",
      "One immutable snapshot of the zoo. `payload` is handed to a Python executor as it is; a "
      "batch holds requests of one CandidateTable object only.")
      .def(py::init(&MakeTable), py::arg("payload"), py::arg("num_candidates"),
           py::arg("hidden_size") = 0, py::arg("version") = 0)
      .def_property_readonly("payload",
                             [](const CandidateTable& table) { return Held(table.payload()); })
      .def_property_readonly("num_candidates", &CandidateTable::num_candidates)
      .def_property_readonly("hidden_size", &CandidateTable::hidden_size)
      .def_property_readonly("version", &CandidateTable::version)
      .def("__repr__", [](const CandidateTable& table) { return "<" + table.ToString() + ">"; });

  py::class_<Executor, std::shared_ptr<Executor>>(m, "Executor", "An executor written in C++.");
  py::class_<NoOpExecutor, Executor, std::shared_ptr<NoOpExecutor>>(
      m, "NoOpExecutor", "Answers zeros: the floor against which scheduling is measured.")
      .def(py::init([](std::int32_t requests, std::int32_t tokens, std::int32_t instruction) {
             return std::make_shared<NoOpExecutor>(ExecutorLimits{requests, tokens, instruction});
           }),
           py::arg("max_batch_requests") = 64, py::arg("max_batch_tokens") = 16384,
           py::arg("max_instruction_tokens") = 512);

  py::class_<PythonSubmission, std::shared_ptr<PythonSubmission>>(
      m, "Submission", "N requests admitted together, and their answers once done.")
      .def_property_readonly("done", &PythonSubmission::done)
      .def("wait", &WaitFor, py::arg("timeout_s") = py::none(),
           "Blocks without the GIL until done, at most timeout_s; returns done.")
      .def(
          "result",
          [](const std::shared_ptr<PythonSubmission>& submission) {
            WaitFor(submission, std::nullopt);
            RaiseUnlessOk(submission->status());
            return Probabilities(submission);
          },
          "Waits and returns the probabilities, or raises the first failure.")
      .def(
          "cancel",
          [](const std::shared_ptr<PythonSubmission>& submission) {
            return PythonScheduler::Cancel(*submission, submission);
          },
          "Answers what is unanswered as cancelled; false if there was nothing left.")
      .def_property_readonly("probabilities", &Probabilities,
                             "float32 [N, M], a view; the row of a failed request is zero.")
      .def_property_readonly(
          "queue_us", [](const PythonSubmission& s) { return Times(s, &Answer::queue_us); },
          "int64 [N]: from admission to the start of the request's batch.")
      .def_property_readonly(
          "execute_us", [](const PythonSubmission& s) { return Times(s, &Answer::execute_us); },
          "int64 [N]: execution of the request's batch.")
      .def_property_readonly("statuses", &Statuses, "N names: ok, deadline_exceeded, ...");

  py::class_<PythonScheduler, std::shared_ptr<PythonScheduler>>(
      m, "BatchScheduler",
      "Collects requests of many threads and event loops into batches for one executor.\n\n"
      "executor: a callable (token_ids int32 [T], cu_seqlens int32 [B + 1], payload of the table) "
      "-> float32 [B, M], called on one thread, or an Executor of this module. The bounds tighten "
      "those of an Executor. token_ids and cu_seqlens everywhere are int32; cu_seqlens None means "
      "one instruction. deadline_us counts from now. priority is -3 to 3, higher is served "
      "earlier; one level is worth ageing_us of waiting. A request with a deadline is refused as "
      "Overloaded when deadline_margin times what it is estimated to take exceeds it; 0 estimates "
      "nothing.")
      .def(py::init(&MakeScheduler), py::arg("executor"), py::kw_only(),
           py::arg("max_batch_requests") = 64, py::arg("max_batch_tokens") = 16384,
           py::arg("max_instruction_tokens") = 512, py::arg("max_queue_requests") = 4096,
           py::arg("max_queue_tokens") = std::int64_t{1} << 21, py::arg("ageing_us") = 100'000,
           py::arg("deadline_margin") = 1.5)
      .def("score", &PythonScheduler::Score, py::arg("token_ids"), py::arg("cu_seqlens"),
           py::arg("table"), py::kw_only(), py::arg("deadline_us") = py::none(),
           py::arg("priority") = 0,
           "Scores one or thousands of instructions and waits without the GIL; returns the done "
           "Submission or raises the first failure.")
      .def("submit", &PythonScheduler::Submit, py::arg("token_ids"), py::arg("cu_seqlens"),
           py::arg("table"), py::kw_only(), py::arg("deadline_us") = py::none(),
           py::arg("priority") = 0, py::arg("callback") = py::none(),
           "Returns a Submission at once, or raises why none was admitted; callback(submission) "
           "runs on a thread of the scheduler.")
      .def("ascore", &PythonScheduler::ScoreAsync, py::arg("token_ids"), py::arg("cu_seqlens"),
           py::arg("table"), py::kw_only(), py::arg("deadline_us") = py::none(),
           py::arg("priority") = 0,
           "Returns an asyncio future of the done Submission; cancelling it (or the task that "
           "awaits it) cancels the requests.")
      .def("ask", &PythonScheduler::Ask, py::arg("num_requests"), py::arg("num_candidates"),
           py::kw_only(), py::arg("deadline_us") = py::none(), py::arg("priority") = 0,
           "Returns what submit would raise now for so many requests of usual length, such as "
           "Overloaded, or None; admits nothing. For callers who want to know before they "
           "tokenise.")
      .def("stats", [](const PythonScheduler& self) { return StatsAsDict(self.Stats()); })
      .def("drain", &PythonScheduler::Drain, py::arg("timeout_s") = py::none(),
           "Refuses new requests and waits for the accepted ones; false if timeout_s was short.")
      .def("close", &PythonScheduler::Close,
           "Answers waiting requests as shutting down, lets the running batch finish, ends the "
           "threads.")
      .def("__enter__", [](py::object self) { return self; })
      .def("__exit__", [](PythonScheduler& self, const py::args&) { self.Close(); })
      .def_property_readonly("limits", [](const PythonScheduler& self) {
        py::dict out;
        out["max_batch_requests"] = self.limits().max_batch_requests;
        out["max_batch_tokens"] = self.limits().max_batch_tokens;
        out["max_instruction_tokens"] = self.limits().max_instruction_tokens;
        return out;
      });

  py::module_::import("atexit").attr("register")(py::cpp_function(&CloseAll));
}
