// One packed copy of a router's weights in a process, however many executors use it.

#ifndef MODELSAT_CPU_MODEL_CACHE_H_
#define MODELSAT_CPU_MODEL_CACHE_H_

#include <map>
#include <memory>
#include <string>

#include "cpu/model.h"
#include "modelsat/native_executor.h"

namespace modelsat {

// The model of this file, tensors and configuration: that of an executor which still lives, or a
// new one. A file that was written or replaced since is another file. Throws what NativeModel does.
// Thread-safe; two that ask for one model at once pack it once.
std::shared_ptr<const NativeModel> SharedModel(const std::string& weights_path,
                                               const std::map<std::string, NativeTensor>& tensors,
                                               const NativeConfig& config);

}  // namespace modelsat

#endif  // MODELSAT_CPU_MODEL_CACHE_H_
