#include "async_delivery.h"

#include <algorithm>
#include <utility>

#include "python_objects.h"

namespace py = pybind11;

namespace modelsat {
namespace {

// With the GIL. Nobody waits for an exception here, so it is reported as unraisable.
void DeliverToPython(const std::vector<std::shared_ptr<Submission>>& finished) {
  std::vector<std::pair<py::object, py::list>> loops;
  for (const auto& base : finished) {
    const auto submission = std::static_pointer_cast<PythonSubmission>(base);
    // Emptied here, which breaks the cycle submission - future - callback - submission.
    const auto callback = std::exchange(submission->callback, nullptr);
    const auto loop = std::exchange(submission->loop, nullptr);
    const auto future = std::exchange(submission->future, nullptr);
    if (callback != nullptr) {
      try {
        Held(callback)(submission);
      } catch (py::error_already_set& error) {
        error.discard_as_unraisable("a callback of BatchScheduler.submit");
      }
    }
    if (loop == nullptr) continue;
    const auto known = std::find_if(loops.begin(), loops.end(), [&](const auto& entry) {
      return entry.first.ptr() == loop.get();
    });
    auto& entry = known != loops.end() ? *known : loops.emplace_back(Held(loop), py::list());
    entry.second.append(py::make_tuple(Held(future), submission));
  }
  for (auto& [loop, pairs] : loops) {
    try {
      loop.attr("call_soon_threadsafe")(py::cpp_function(&SettleFutures), pairs);
    } catch (py::error_already_set& error) {
      // RuntimeError means that the loop was closed: nobody awaits its futures any more.
      if (!error.matches(PyExc_RuntimeError)) error.discard_as_unraisable("call_soon_threadsafe");
    }
  }
}

}  // namespace

void SettleFutures(const py::list& pairs) {
  for (const py::handle pair : pairs) {
    const auto items = py::reinterpret_borrow<py::tuple>(pair);
    const py::object future = items[0];
    if (py::cast<bool>(future.attr("done")())) continue;  // its task was cancelled
    const auto submission = py::cast<std::shared_ptr<PythonSubmission>>(items[1]);
    if (submission->status().ok()) {
      future.attr("set_result")(items[1]);
    } else {
      future.attr("set_exception")(MakeException(submission->status()));
    }
  }
}

AsyncDelivery::~AsyncDelivery() {
  MutexLock lock(&join_mutex_);
  if (thread_.joinable()) thread_.detach();
}

void AsyncDelivery::Start() {
  MutexLock lock(&join_mutex_);
  thread_ = std::thread([self = shared_from_this()] { self->Run(); });
  thread_id_ = thread_.get_id();
}

void AsyncDelivery::Stop() {
  if (fork_guard_.forked()) return;
  {
    MutexLock lock(&mutex_);
    stopped_ = true;
    condition_.NotifyOne();
  }
  if (std::this_thread::get_id() == thread_id_) return;
  MutexLock lock(&join_mutex_);
  if (thread_.joinable()) thread_.join();
}

void AsyncDelivery::Deliver(std::vector<std::shared_ptr<Submission>> finished) noexcept {
  MutexLock lock(&mutex_);
  for (auto& submission : finished) finished_.push_back(std::move(submission));
  condition_.NotifyOne();
}

void AsyncDelivery::Run() {
  for (;;) {
    std::vector<std::shared_ptr<Submission>> finished;
    {
      MutexLock lock(&mutex_);
      while (finished_.empty() && !stopped_) condition_.Wait(&mutex_);
      if (finished_.empty()) return;
      finished.swap(finished_);
    }
    if (!Py_IsInitialized()) continue;
    py::gil_scoped_acquire gil;
    ReleaseDeferred();
    DeliverToPython(finished);
    finished.clear();  // its references go while the GIL is held
  }
}

}  // namespace modelsat
