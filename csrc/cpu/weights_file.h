// A safetensors file, mapped into memory and read with suspicion.

#ifndef MODELSAT_CPU_WEIGHTS_FILE_H_
#define MODELSAT_CPU_WEIGHTS_FILE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "modelsat/native_executor.h"

namespace modelsat {

// Tensors by name. Every method throws std::invalid_argument, with the file and the tensor in the
// message, for one that is missing, of another type or shape, outside the file or not finite.
class WeightsFile {
 public:
  WeightsFile(const std::string& path, const std::map<std::string, NativeTensor>& tensors);
  ~WeightsFile();
  WeightsFile(const WeightsFile&) = delete;
  WeightsFile& operator=(const WeightsFile&) = delete;

  bool Has(const std::string& name) const { return tensors_.count(name) > 0; }

  // A copy: floats need not be aligned in the file.
  std::vector<float> Floats(const std::string& name, const std::vector<std::int64_t>& shape) const;

  // In place; valid as long as this object.
  const std::int8_t* Int8(const std::string& name, const std::vector<std::int64_t>& shape) const;

 private:
  const char* Find(const std::string& name, const char* dtype, std::int64_t item_bytes,
                   const std::vector<std::int64_t>& shape) const;
  [[noreturn]] void Refuse(const std::string& name, const std::string& why) const;

  const std::string path_;
  const std::map<std::string, NativeTensor> tensors_;
  std::vector<char> copy_;  // where files cannot be mapped
  const char* bytes_ = nullptr;
  std::uint64_t size_bytes_ = 0;
};

}  // namespace modelsat

#endif  // MODELSAT_CPU_WEIGHTS_FILE_H_
