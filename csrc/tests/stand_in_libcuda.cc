// A stand-in for NVIDIA's driver library, for tests on machines without a GPU. It is no emulation:
// a "stream" is one thread that does what is queued, one thing after the other; "device memory" is
// host memory; a "graph" is the function that stand_in_graph describes. It shows whether calls come
// in the right order, from a thread with a context, and what becomes of their errors.
//
// Built with -DSTAND_IN_VERSION=... it says to be of that version of CUDA, with
// -DSTAND_IN_WITHOUT_GRAPHS it lacks cuGraphLaunch.

#include "stand_in_libcuda.h"

#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#ifndef STAND_IN_VERSION
#define STAND_IN_VERSION 12040
#endif

namespace {

constexpr int kInvalidContext = 201;
constexpr int kInvalidHandle = 400;
constexpr int kNotReady = 600;

struct Graph {
  const std::int32_t* inputs;
  float* scores;
  const float* candidates;
  std::int32_t requests, tokens, room;
  void (*callback)();  // instead of all of this, if there
};

struct Device {
  std::mutex mutex;
  std::condition_variable changed;
  std::queue<std::function<void()>> queued;
  std::uint64_t num_queued = 0;
  std::uint64_t num_done = 0;
  bool paused = false;
  std::string calls;
  std::map<std::string, int> failures;
  std::map<void*, std::uint64_t> events;  // event -> how much is done when it has happened
  std::uintptr_t last_event = 0;
  std::thread worker{[this] { Work(); }};

  [[noreturn]] void Work() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return !paused && !queued.empty(); });
      const std::function<void()> next = std::move(queued.front());
      queued.pop();
      lock.unlock();
      next();
      lock.lock();
      ++num_done;
      changed.notify_all();
    }
  }
};

// Never destroyed: its thread works until the process ends.
Device& TheDevice() {
  static Device* const device = [] {
    auto made = std::make_unique<Device>();
    made->worker.detach();
    return made.release();
  }();
  return *device;
}

thread_local std::vector<void*> contexts;
int the_context;  // its address is the context

// What a function should give right away, or 0 to go on. The device's mutex is held.
int Failure(const Device& device, const char* function) {
  const auto failure = device.failures.find(function);
  return failure == device.failures.end() ? 0 : failure->second;
}

// Notes the call, and gives Failure.
int Called(const char* function) {
  Device& device = TheDevice();
  const std::lock_guard<std::mutex> lock(device.mutex);
  if (!device.calls.empty()) device.calls += ' ';
  device.calls += function;
  return Failure(device, function);
}

int CalledInContext(const char* function) {
  const int result = Called(function);
  if (result != 0) return result;
  return contexts.empty() ? kInvalidContext : 0;
}

// What is queued goes to the one stream there is.
int CalledOn(const char* function, const void* stream) {
  const int result = CalledInContext(function);
  if (result != 0) return result;
  return stream == &TheDevice() ? 0 : kInvalidHandle;
}

void Queue(std::function<void()> work) {
  Device& device = TheDevice();
  const std::lock_guard<std::mutex> lock(device.mutex);
  device.queued.push(std::move(work));
  ++device.num_queued;
  device.changed.notify_all();
}

[[maybe_unused]] void Run(const Graph& graph) {
  if (graph.callback != nullptr) {
    graph.callback();
    return;
  }
  const std::int32_t* const tokens = graph.inputs;
  const std::int32_t* const positions = tokens + graph.tokens;
  const std::int32_t* const lengths = positions + graph.tokens;
  bool right = lengths[0] == 0 && lengths[graph.requests] <= graph.tokens;
  for (std::int32_t b = 0; right && b < graph.requests; ++b) {
    right = lengths[b] <= lengths[b + 1];
    for (std::int32_t t = lengths[b]; right && t < lengths[b + 1]; ++t) {
      right = positions[t] == t - lengths[b];
    }
  }
  for (std::int32_t t = lengths[graph.requests]; right && t < graph.tokens; ++t) {
    right = tokens[t] == 0 && positions[t] == 0;
  }
  for (std::int32_t b = 0; b < graph.requests; ++b) {
    float* const row = graph.scores + static_cast<std::ptrdiff_t>(b) * graph.room;
    const float share =
        right ? modelsat::StandInShare(tokens + lengths[b], lengths[b + 1] - lengths[b]) : -1.0f;
    for (std::int32_t m = 0; m < graph.room; ++m) {
      row[m] = right ? graph.candidates[m] * share : share;
    }
  }
}

// Never freed, but always reachable.
void* Keep(const Graph& graph) {
  static auto* const graphs = std::make_unique<std::vector<std::unique_ptr<Graph>>>().release();
  graphs->push_back(std::make_unique<Graph>(graph));
  return graphs->back().get();
}

}  // namespace

extern "C" {

void stand_in_reset() {
  Device& device = TheDevice();
  std::unique_lock<std::mutex> lock(device.mutex);
  device.paused = false;
  device.changed.notify_all();
  device.changed.wait(lock, [&] { return device.num_done == device.num_queued; });
  device.calls.clear();
  device.failures.clear();
  if (contexts.empty()) contexts.push_back(&the_context);
}

void stand_in_fail(const char* function, int result) {
  const std::lock_guard<std::mutex> lock(TheDevice().mutex);
  TheDevice().failures[function] = result;
}

void stand_in_pause(bool paused) {
  const std::lock_guard<std::mutex> lock(TheDevice().mutex);
  TheDevice().paused = paused;
  TheDevice().changed.notify_all();
}

void stand_in_calls(char* text, int size) {
  const std::lock_guard<std::mutex> lock(TheDevice().mutex);
  std::strncpy(text, TheDevice().calls.c_str(), static_cast<std::size_t>(size));
  text[size - 1] = '\0';
}

void* stand_in_graph(const std::int32_t* inputs, float* scores, const float* candidates,
                     std::int32_t requests, std::int32_t tokens, std::int32_t room) {
  return Keep({inputs, scores, candidates, requests, tokens, room, nullptr});
}

void* stand_in_callback(void (*run)()) { return Keep({{}, {}, {}, {}, {}, {}, run}); }

// ------------------------------------------------------------- the driver's functions, as it has
// them

int cuDriverGetVersion(int* version) {
  *version = STAND_IN_VERSION;
  return Called("cuDriverGetVersion");
}

int cuGetErrorName(int result, const char** name) {
  switch (result) {
    case 2:
      *name = "CUDA_ERROR_OUT_OF_MEMORY";
      return 0;
    case 700:
      *name = "CUDA_ERROR_ILLEGAL_ADDRESS";
      return 0;
    case kInvalidContext:
      *name = "CUDA_ERROR_INVALID_CONTEXT";
      return 0;
    default:
      return 1;  // CUDA_ERROR_INVALID_VALUE, for a code it does not know
  }
}

int cuGetErrorString(int result, const char** text) {
  *text = result == 2 ? "out of memory" : "an illegal memory access was encountered";
  return result == 2 || result == 700 ? 0 : 1;
}

int cuCtxGetCurrent(void** context) {
  *context = contexts.empty() ? nullptr : contexts.back();
  return Called("cuCtxGetCurrent");
}

int cuCtxPushCurrent_v2(void* context) {
  const int result = Called("cuCtxPushCurrent");
  if (result == 0) contexts.push_back(context);
  return result;
}

int cuCtxPopCurrent_v2(void** context) {
  const int result = CalledInContext("cuCtxPopCurrent");
  if (result != 0) return result;
  *context = contexts.back();
  contexts.pop_back();
  return 0;
}

int cuStreamCreate(void** stream, unsigned int flags) {
  const int result = CalledInContext("cuStreamCreate");
  if (result != 0) return result;
  *stream = &TheDevice();          // there is one
  return flags == 1 ? result : 1;  // CU_STREAM_NON_BLOCKING
}

int cuStreamDestroy_v2(void*) { return CalledInContext("cuStreamDestroy"); }

int cuEventCreate(void** event, unsigned int flags) {
  const int result = CalledInContext("cuEventCreate");
  if (result != 0) return result;
  if (flags != 3) return 1;  // CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING
  Device& device = TheDevice();
  const std::lock_guard<std::mutex> lock(device.mutex);
  *event = reinterpret_cast<void*>(++device.last_event);
  device.events[*event] = 0;
  return 0;
}

int cuEventDestroy_v2(void* event) {
  const int result = CalledInContext("cuEventDestroy");
  if (result != 0) return result;
  const std::lock_guard<std::mutex> lock(TheDevice().mutex);
  return TheDevice().events.erase(event) == 1 ? 0 : kInvalidHandle;
}

int cuEventRecord(void* event, void* stream) {
  const int result = CalledOn("cuEventRecord", stream);
  if (result != 0) return result;
  Device& device = TheDevice();
  const std::lock_guard<std::mutex> lock(device.mutex);
  if (device.events.count(event) == 0) return kInvalidHandle;
  device.events[event] = device.num_queued;
  return 0;
}

int cuEventSynchronize(void* event) {
  const int result = CalledInContext("cuEventSynchronize");
  if (result != 0) return result;
  Device& device = TheDevice();
  std::unique_lock<std::mutex> lock(device.mutex);
  if (device.events.count(event) == 0) return kInvalidHandle;
  device.changed.wait(lock, [&] { return device.num_done >= device.events[event]; });
  return 0;
}

// Not among the calls: how often it is asked depends on the machine.
int cuEventQuery(void* event) {
  Device& device = TheDevice();
  const std::lock_guard<std::mutex> lock(device.mutex);
  const int result = Failure(device, "cuEventQuery");
  if (result != 0) return result;
  if (contexts.empty()) return kInvalidContext;
  if (device.events.count(event) == 0) return kInvalidHandle;
  return device.num_done >= device.events[event] ? 0 : kNotReady;
}

int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, std::size_t size,
                         void* stream) {
  const int result = CalledOn("cuMemcpyDtoDAsync", stream);
  if (result != 0) return result;
  Queue([=] { std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), size); });
  return 0;
}

#ifndef STAND_IN_WITHOUT_GRAPHS
int cuGraphLaunch(void* graph, void* stream) {
  const int result = CalledOn("cuGraphLaunch", stream);
  if (result != 0) return result;
  Queue([graph] { Run(*static_cast<const Graph*>(graph)); });
  return 0;
}
#endif
}
