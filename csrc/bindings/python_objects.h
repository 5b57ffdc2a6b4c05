// Python objects in the hands of C++ threads that do not hold the GIL, and errors on the way out.

#ifndef MODELSAT_BINDINGS_PYTHON_OBJECTS_H_
#define MODELSAT_BINDINGS_PYTHON_OBJECTS_H_

#include <pybind11/pybind11.h>

#include <memory>

#include "modelsat/status.h"

namespace modelsat {

// Lets go of the GIL for a scope. Where the interpreter ended meanwhile, CPython before 3.14 ends
// the thread that asks for the GIL, by unwinding its stack: through pybind11's own guard, whose
// destructor may not throw, that would be std::terminate. Here such a thread waits for ever
// instead, as CPython 3.14 lets it, and goes with the process.
class GilRelease {
 public:
  GilRelease() : state_(PyEval_SaveThread()) {}
  ~GilRelease();
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* const state_;
};

// A reference that any thread may copy and drop. Dropping the last one without the GIL puts the
// object aside until ReleaseDeferred, because waiting for the GIL takes 5 ms beside a busy Python
// thread. Call with the GIL.
std::shared_ptr<const void> Hold(pybind11::object object);

// The object in a reference made by Hold, None for an empty one. Call with the GIL.
pybind11::object Held(const std::shared_ptr<const void>& reference);

// Lets go of what was put aside. Call with the GIL.
void ReleaseDeferred();

// An instance of the class in modelsat_engine.errors that belongs to the status, with the exception
// of a Python executor as its cause. Call with the GIL.
pybind11::object MakeException(const Status& status);

// Raises it in Python unless the status is Ok. Call with the GIL.
void RaiseUnlessOk(const Status& status);

}  // namespace modelsat

#endif  // MODELSAT_BINDINGS_PYTHON_OBJECTS_H_
