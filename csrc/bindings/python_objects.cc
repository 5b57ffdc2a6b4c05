#include "python_objects.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

namespace py = pybind11;

namespace modelsat {
namespace {

// A stack without a lock: in a forked child a lock might be held for ever.
struct DeferredObject {
  PyObject* object;
  DeferredObject* next;
};

std::atomic<DeferredObject*> deferred_objects{nullptr};

void DropReference(PyObject* object) {
  if (Py_IsInitialized() && PyGILState_Check()) {
    Py_DECREF(object);
    return;
  }
  DeferredObject* const top =
      std::make_unique<DeferredObject>(DeferredObject{object, deferred_objects.load()}).release();
  while (!deferred_objects.compare_exchange_weak(top->next, top)) {
  }
}

const char* ErrorClass(StatusCode code) {
  switch (code) {
    case StatusCode::kOverloaded:
      return "Overloaded";
    case StatusCode::kDeadlineExceeded:
      return "DeadlineExceeded";
    case StatusCode::kTooLarge:
      return "TooLarge";
    case StatusCode::kShuttingDown:
      return "ShuttingDown";
    case StatusCode::kCancelled:
      return "Cancelled";
    case StatusCode::kInvalidArgument:
      return "InstructionError";
    case StatusCode::kForked:
      return "ForkedProcess";
    case StatusCode::kOk:
    case StatusCode::kExecutorError:
      break;
  }
  return "ExecutorError";
}

}  // namespace

GilRelease::~GilRelease() {
  try {
    PyEval_RestoreThread(state_);
  } catch (...) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

std::shared_ptr<const void> Hold(py::object object) {
  if (object.is_none()) return nullptr;
  PyObject* const raw = object.release().ptr();
  return std::shared_ptr<const void>(
      raw, [](const void* p) { DropReference(static_cast<PyObject*>(const_cast<void*>(p))); });
}

py::object Held(const std::shared_ptr<const void>& reference) {
  if (reference == nullptr) return py::none();
  return py::reinterpret_borrow<py::object>(
      static_cast<PyObject*>(const_cast<void*>(reference.get())));
}

void ReleaseDeferred() {
  DeferredObject* top = deferred_objects.exchange(nullptr);
  while (top != nullptr) {
    const std::unique_ptr<DeferredObject> deferred(top);
    top = deferred->next;
    Py_DECREF(deferred->object);  // may run Python code
  }
}

py::object MakeException(const Status& status) {
  const py::module_ errors = py::module_::import("modelsat_engine.errors");
  py::object exception = errors.attr(ErrorClass(status.code()))(status.message());
  if (status.detail() != nullptr) exception.attr("__cause__") = Held(status.detail());
  return exception;
}

void RaiseUnlessOk(const Status& status) {
  if (status.ok()) return;
  const py::object exception = MakeException(status);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw py::error_already_set();
}

}  // namespace modelsat
