#include "cpu/model_cache.h"

#include <cstdint>
#include <sstream>

#include "modelsat/mutex.h"

#if defined(__unix__) || defined(__APPLE__)
#include <sys/stat.h>
#endif

namespace modelsat {
namespace {

struct Cache {
  Mutex mutex;
  std::map<std::string, std::weak_ptr<const NativeModel>> models MODELSAT_GUARDED_BY(mutex);
};

// What tells this file from any other and from itself after a change; empty when the system cannot
// say. The time of the last change of status is one that nobody can set.
std::string IdentityOf(const std::string& path) {
  std::ostringstream text;
#if defined(__unix__)
  struct stat info = {};
  if (stat(path.c_str(), &info) == 0) {
    text << info.st_dev << ' ' << info.st_ino << ' ' << info.st_size << ' ' << info.st_ctim.tv_sec
         << ' ' << info.st_ctim.tv_nsec << '\n';
  }
#else
  static_cast<void>(path);
#endif
  return text.str();
}

std::string KeyOf(const std::string& identity, const std::map<std::string, NativeTensor>& tensors,
                  const NativeConfig& config) {
  std::ostringstream text;
  text.precision(9);
  text << identity << config.layers << ' ' << config.hidden << ' ' << config.heads << ' '
       << config.intermediate << ' ' << config.vocab << ' ' << config.max_positions << ' '
       << config.inject_at << ' ' << config.memory_rows << ' ' << config.views << ' '
       << config.max_instruction_tokens << ' ' << config.evidence_size << ' '
       << config.relevance_hidden << ' ' << config.layer_norm_eps << '\n';
  for (const auto& [name, tensor] : tensors) {
    text << name << ' ' << tensor.dtype << ' ' << tensor.offset_bytes << ' ' << tensor.size_bytes;
    for (const std::int64_t size : tensor.shape) text << ' ' << size;
    text << '\n';
  }
  return text.str();
}

}  // namespace

std::shared_ptr<const NativeModel> SharedModel(const std::string& weights_path,
                                               const std::map<std::string, NativeTensor>& tensors,
                                               const NativeConfig& config) {
  static Cache cache;
  const std::string identity = IdentityOf(weights_path);
  if (identity.empty()) {
    return std::make_shared<const NativeModel>(weights_path, tensors, config);
  }
  MutexLock lock(&cache.mutex);
  for (auto entry = cache.models.begin(); entry != cache.models.end();) {
    entry = entry->second.expired() ? cache.models.erase(entry) : std::next(entry);
  }
  std::weak_ptr<const NativeModel>& place = cache.models[KeyOf(identity, tensors, config)];
  std::shared_ptr<const NativeModel> model = place.lock();
  if (model == nullptr) {
    model = std::make_shared<const NativeModel>(weights_path, tensors, config);
    place = model;
  }
  return model;
}

}  // namespace modelsat
