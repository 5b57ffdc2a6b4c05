// A stand-in for NVIDIA's management library, for tests on machines without a GPU: it sees one GPU
// that does not exist. Built with -DSTAND_IN_MAJOR=7 the GPU is too old, with -DSTAND_IN_SILENT the
// driver does not answer.

#include <cstdio>

#ifndef STAND_IN_MAJOR
#define STAND_IN_MAJOR 9
#endif

extern "C" {

struct Memory {
  unsigned long long total, free, used;
};

int nvmlInit_v2() {
#ifdef STAND_IN_SILENT
  return 9;  // NVML_ERROR_DRIVER_NOT_LOADED
#else
  return 0;
#endif
}
int nvmlShutdown() { return 0; }

int nvmlSystemGetDriverVersion(char* version, unsigned int length) {
  std::snprintf(version, length, "555.44.33");
  return 0;
}

int nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 12050;
  return 0;
}

int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = 1;
  return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** device) {
  static int the_device;
  *device = &the_device;
  return index == 0 ? 0 : 2;  // NVML_ERROR_INVALID_ARGUMENT
}

int nvmlDeviceGetName(void*, char* name, unsigned int length) {
  std::snprintf(name, length, "Stand-in 1000");
  return 0;
}

int nvmlDeviceGetMemoryInfo(void*, Memory* memory) {
  *memory = {80ull << 30, 79ull << 30, 1ull << 30};
  return 0;
}

int nvmlDeviceGetCudaComputeCapability(void*, int* major, int* minor) {
  *major = STAND_IN_MAJOR;
  *minor = 5;
  return 0;
}
}
