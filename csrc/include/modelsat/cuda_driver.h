// The few functions of NVIDIA's driver that it takes to run a captured graph, found when the
// program runs: nothing here is linked with CUDA or needs its headers.

#ifndef MODELSAT_CUDA_DRIVER_H_
#define MODELSAT_CUDA_DRIVER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "modelsat/status.h"

namespace modelsat {

// What the driver hands out: CUcontext, CUstream, CUevent and CUgraphExec. The runtime library's
// cudaStream_t and cudaGraphExec_t are the same pointers.
using CudaContext = struct CudaContextTag*;
using CudaStream = struct CudaStreamTag*;
using CudaEvent = struct CudaEventTag*;
using CudaGraph = struct CudaGraphTag*;

class CudaDriver {
 public:
  static constexpr char kLibrary[] = "libcuda.so.1";

  // Loads the library, which stays loaded: the driver has threads and exit handlers of its own.
  // Throws std::runtime_error when it is missing, lacks a function, or is older than CUDA 12.0.
  explicit CudaDriver(const std::string& library = kLibrary);
  CudaDriver(const CudaDriver&) = delete;
  CudaDriver& operator=(const CudaDriver&) = delete;

  int version() const { return version_; }  // of CUDA that the driver is for: 12040 is 12.4

  // Each of these gives kExecutorError with the driver's name of what went wrong, such as
  // "cuGraphLaunch: CUDA_ERROR_OUT_OF_MEMORY (out of memory)".

  Status CurrentContext(CudaContext* context) const;
  Status PushContext(CudaContext context) const;
  Status PopContext() const;

  // A stream that does not wait for the default one.
  Status CreateStream(CudaStream* stream) const;
  Status DestroyStream(CudaStream stream) const;

  // WaitForEvent waits for it asleep, not spinning.
  Status CreateEvent(CudaEvent* event) const;
  Status DestroyEvent(CudaEvent event) const;
  Status RecordEvent(CudaEvent event, CudaStream stream) const;
  Status WaitForEvent(CudaEvent event) const;
  Status QueryEvent(CudaEvent event, bool* happened) const;

  // From device to device, in the order of the stream.
  Status Copy(std::uint64_t to, std::uint64_t from, std::size_t size_bytes,
              CudaStream stream) const;
  Status Launch(CudaGraph graph, CudaStream stream) const;

 private:
  using Result = int;

  Status Named(const char* function, Result result) const;

  int version_ = 0;
  Result (*driver_get_version_)(int*) = nullptr;
  Result (*get_error_name_)(Result, const char**) = nullptr;
  Result (*get_error_string_)(Result, const char**) = nullptr;
  Result (*context_get_current_)(CudaContext*) = nullptr;
  Result (*context_push_current_)(CudaContext) = nullptr;
  Result (*context_pop_current_)(CudaContext*) = nullptr;
  Result (*stream_create_)(CudaStream*, unsigned int) = nullptr;
  Result (*stream_destroy_)(CudaStream) = nullptr;
  Result (*event_create_)(CudaEvent*, unsigned int) = nullptr;
  Result (*event_destroy_)(CudaEvent) = nullptr;
  Result (*event_record_)(CudaEvent, CudaStream) = nullptr;
  Result (*event_synchronize_)(CudaEvent) = nullptr;
  Result (*event_query_)(CudaEvent) = nullptr;
  // CUdeviceptr is unsigned long long
  Result (*copy_)(unsigned long long, unsigned long long, std::size_t, CudaStream) = nullptr;
  Result (*graph_launch_)(CudaGraph, CudaStream) = nullptr;
};

}  // namespace modelsat

#endif  // MODELSAT_CUDA_DRIVER_H_
