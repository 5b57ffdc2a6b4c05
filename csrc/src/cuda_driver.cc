#include "modelsat/cuda_driver.h"

#include <stdexcept>

#ifndef _WIN32
#include <dlfcn.h>
#endif

namespace modelsat {
namespace {

// CUDA 12.0: what every PyTorch that captures our graphs asks for.
constexpr int kLeastVersion = 12000;
constexpr unsigned int kStreamNonBlocking = 1;
constexpr unsigned int kEventBlockingSync = 1;
constexpr unsigned int kEventDisableTiming = 2;
constexpr int kNotReady = 600;

std::string VersionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

#ifdef _WIN32
void* Load(const std::string&) {
  throw std::runtime_error("graphs are not launched on Windows in this version");
}
void* Find(void*, const char*) { return nullptr; }
#else
void* Load(const std::string& library) {
  void* const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    throw std::runtime_error("the NVIDIA driver cannot be loaded (" + std::string(dlerror()) +
                             "); install it");
  }
  return handle;
}
void* Find(void* handle, const char* name) { return dlsym(handle, name); }
#endif

template <typename Function>
void Resolve(void* handle, const std::string& library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(Find(handle, name));
  if (*function == nullptr) {
    throw std::runtime_error(library + " has no function " + name +
                             ": the NVIDIA driver is too old; update it");
  }
}

}  // namespace

CudaDriver::CudaDriver(const std::string& library) {
  void* const handle = Load(library);
  const auto resolve = [&](const char* name, auto* function) {
    Resolve(handle, library, name, function);
  };
  resolve("cuDriverGetVersion", &driver_get_version_);
  resolve("cuGetErrorName", &get_error_name_);
  resolve("cuGetErrorString", &get_error_string_);
  Status status = Named("cuDriverGetVersion", driver_get_version_(&version_));
  if (!status.ok()) throw std::runtime_error(status.message());
  if (version_ < kLeastVersion) {
    throw std::runtime_error("the NVIDIA driver is for CUDA " + VersionText(version_) +
                             ", graphs need one for " + VersionText(kLeastVersion) +
                             " or later; update it");
  }
  resolve("cuCtxGetCurrent", &context_get_current_);
  resolve("cuCtxPushCurrent_v2", &context_push_current_);
  resolve("cuCtxPopCurrent_v2", &context_pop_current_);
  resolve("cuStreamCreate", &stream_create_);
  resolve("cuStreamDestroy_v2", &stream_destroy_);
  resolve("cuEventCreate", &event_create_);
  resolve("cuEventDestroy_v2", &event_destroy_);
  resolve("cuEventRecord", &event_record_);
  resolve("cuEventSynchronize", &event_synchronize_);
  resolve("cuEventQuery", &event_query_);
  resolve("cuMemcpyDtoDAsync_v2", &copy_);
  resolve("cuGraphLaunch", &graph_launch_);
}

Status CudaDriver::CurrentContext(CudaContext* context) const {
  return Named("cuCtxGetCurrent", context_get_current_(context));
}

Status CudaDriver::PushContext(CudaContext context) const {
  return Named("cuCtxPushCurrent", context_push_current_(context));
}

Status CudaDriver::PopContext() const {
  CudaContext popped = nullptr;
  return Named("cuCtxPopCurrent", context_pop_current_(&popped));
}

Status CudaDriver::CreateStream(CudaStream* stream) const {
  return Named("cuStreamCreate", stream_create_(stream, kStreamNonBlocking));
}

Status CudaDriver::DestroyStream(CudaStream stream) const {
  return Named("cuStreamDestroy", stream_destroy_(stream));
}

Status CudaDriver::CreateEvent(CudaEvent* event) const {
  return Named("cuEventCreate", event_create_(event, kEventBlockingSync | kEventDisableTiming));
}

Status CudaDriver::DestroyEvent(CudaEvent event) const {
  return Named("cuEventDestroy", event_destroy_(event));
}

Status CudaDriver::RecordEvent(CudaEvent event, CudaStream stream) const {
  return Named("cuEventRecord", event_record_(event, stream));
}

Status CudaDriver::WaitForEvent(CudaEvent event) const {
  return Named("cuEventSynchronize", event_synchronize_(event));
}

Status CudaDriver::QueryEvent(CudaEvent event, bool* happened) const {
  const Result result = event_query_(event);
  *happened = result == 0;
  return Named("cuEventQuery", result == kNotReady ? 0 : result);
}

Status CudaDriver::Copy(std::uint64_t to, std::uint64_t from, std::size_t size_bytes,
                        CudaStream stream) const {
  return Named("cuMemcpyDtoDAsync", copy_(to, from, size_bytes, stream));
}

Status CudaDriver::Launch(CudaGraph graph, CudaStream stream) const {
  return Named("cuGraphLaunch", graph_launch_(graph, stream));
}

Status CudaDriver::Named(const char* function, Result result) const {
  if (result == 0) return Status();
  const char* name = nullptr;
  const char* text = nullptr;
  if (get_error_name_(result, &name) != 0) name = nullptr;
  if (get_error_string_(result, &text) != 0) text = nullptr;
  std::string message = std::string(function) + ": ";
  message += name != nullptr ? std::string(name) : "error " + std::to_string(result);
  if (text != nullptr) message += " (" + std::string(text) + ")";
  return Status(StatusCode::kExecutorError, std::move(message));
}

}  // namespace modelsat
