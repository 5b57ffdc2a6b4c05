#include "cpu/weights_file.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <stdexcept>

#if defined(__unix__) || defined(__APPLE__)
#define MODELSAT_HAVE_MMAP 1
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace modelsat {
namespace {

std::string ShapeText(const std::vector<std::int64_t>& shape) {
  std::string text = "[";
  for (const std::int64_t size : shape) {
    text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  }
  return text + "]";
}

}  // namespace

#if defined(MODELSAT_HAVE_MMAP)

WeightsFile::WeightsFile(const std::string& path,
                         const std::map<std::string, NativeTensor>& tensors)
    : path_(path), tensors_(tensors) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat info = {};
  const bool readable = file >= 0 && fstat(file, &info) == 0 && S_ISREG(info.st_mode);
  const std::string why = file < 0 ? std::strerror(errno) : "not a regular file";
  void* mapped = nullptr;
  if (readable && info.st_size > 0) {
    size_bytes_ = static_cast<std::uint64_t>(info.st_size);
    mapped = mmap(nullptr, size_bytes_, PROT_READ, MAP_PRIVATE, file, 0);
  }
  if (file >= 0) close(file);
  if (!readable) throw std::invalid_argument("weights " + path + " cannot be read: " + why);
  if (mapped == MAP_FAILED) {
    throw std::invalid_argument("weights " + path + " cannot be mapped into memory");
  }
  bytes_ = static_cast<const char*>(mapped);
}

WeightsFile::~WeightsFile() {
  if (bytes_ != nullptr) munmap(const_cast<char*>(bytes_), size_bytes_);
}

#else

WeightsFile::WeightsFile(const std::string& path,
                         const std::map<std::string, NativeTensor>& tensors)
    : path_(path), tensors_(tensors) {
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::invalid_argument("weights " + path + " cannot be read");
  copy_.resize(static_cast<std::size_t>(file.tellg()));
  file.seekg(0);
  if (!file.read(copy_.data(), static_cast<std::streamsize>(copy_.size()))) {
    throw std::invalid_argument("weights " + path + " cannot be read to the end");
  }
  bytes_ = copy_.data();
  size_bytes_ = copy_.size();
}

WeightsFile::~WeightsFile() = default;

#endif

std::vector<float> WeightsFile::Floats(const std::string& name,
                                       const std::vector<std::int64_t>& shape) const {
  const char* const source = Find(name, "F32", sizeof(float), shape);
  std::int64_t count = 1;
  for (const std::int64_t size : shape) count *= size;
  std::vector<float> values(static_cast<std::size_t>(count));
  if (count > 0) std::memcpy(values.data(), source, values.size() * sizeof(float));
  for (const float value : values) {
    if (!std::isfinite(value)) Refuse(name, "holds NaN or infinity; the bundle is damaged");
  }
  return values;
}

const std::int8_t* WeightsFile::Int8(const std::string& name,
                                     const std::vector<std::int64_t>& shape) const {
  return reinterpret_cast<const std::int8_t*>(Find(name, "I8", 1, shape));
}

const char* WeightsFile::Find(const std::string& name, const char* dtype, std::int64_t item_bytes,
                              const std::vector<std::int64_t>& shape) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) Refuse(name, "is missing");
  const NativeTensor& tensor = found->second;
  if (tensor.dtype != dtype) {
    Refuse(name, "is of type " + tensor.dtype + ", not " + dtype);
  }
  if (tensor.shape != shape) {
    Refuse(name, "has the shape " + ShapeText(tensor.shape) + ", but router.json says " +
                     ShapeText(shape));
  }
  std::uint64_t wanted = static_cast<std::uint64_t>(item_bytes);
  for (const std::int64_t size : shape) wanted *= static_cast<std::uint64_t>(size);
  if (tensor.size_bytes != wanted) {
    Refuse(name,
           "takes " + std::to_string(tensor.size_bytes) + " bytes, not " + std::to_string(wanted));
  }
  if (tensor.offset_bytes > size_bytes_ || wanted > size_bytes_ - tensor.offset_bytes) {
    Refuse(name, "lies outside the file of " + std::to_string(size_bytes_) +
                     " bytes; the file is truncated");
  }
  return bytes_ + tensor.offset_bytes;
}

void WeightsFile::Refuse(const std::string& name, const std::string& why) const {
  throw std::invalid_argument("weights " + path_ + ": tensor " + name + " " + why);
}

}  // namespace modelsat
