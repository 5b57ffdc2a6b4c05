// Routes instructions with an exported graph and ONNX Runtime's C++ API alone.
//
//   modelsat export --to onnx --precision int8
//   g++ -std=c++17 -O2 route.cc -I$ORT/include -L$ORT/lib -lonnxruntime -o route
//   ./route mini-int8.onnx mini-int8.candidates.npz 101 2029 5923 2003 1996 6493 1029 102
//
// The numbers are the token ids of one instruction, as mini-int8.tokenizer.json gives them ("Which
// bone is the longest?"). Prints one line a candidate: probability and name, the likeliest first.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Array {
  std::string type;  // as NumPy names it: "<f4", "<U30"
  std::vector<int64_t> shape;
  std::string bytes;
};

// The number that follows `key` in the header of a .npy file, or all of them in parentheses.
std::vector<int64_t> NumbersAfter(const std::string& header, const std::string& key) {
  std::vector<int64_t> numbers;
  size_t at = header.find('(', header.find(key));
  const size_t end = header.find(')', at);
  while (++at < end) {
    if (header[at] < '0' || header[at] > '9') continue;
    numbers.push_back(std::strtoll(header.c_str() + at, nullptr, 10));
    at = header.find_first_not_of("0123456789", at);
  }
  return numbers;
}

// The arrays of an uncompressed .npz: .npy files one after the other, each behind a local header of
// a zip archive.
std::map<std::string, Array> ReadArchive(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto number = [&all](size_t at, size_t bytes) {
    uint64_t value = 0;
    if (at + bytes > all.size()) throw std::runtime_error("the candidates file is cut short");
    std::memcpy(&value, all.data() + at, bytes);
    return value;
  };
  std::map<std::string, Array> arrays;
  size_t at = 0;
  while (all.compare(at, 4, "PK\3\4") == 0) {
    const size_t name_size = number(at + 26, 2);
    const std::string name = all.substr(at + 30, name_size);
    const size_t npy = at + 30 + name_size + number(at + 28, 2);
    const size_t header_size = number(npy + 8, 2);
    const std::string header = all.substr(npy + 10, header_size);
    Array array;
    const size_t type = header.find('\'', header.find("'descr'") + 8) + 1;
    array.type = header.substr(type, header.find('\'', type) - type);
    array.shape = NumbersAfter(header, "'shape'");
    size_t bytes = array.type[1] == 'U' ? 4 * std::stoul(array.type.substr(2))
                                        : std::stoul(array.type.substr(2));
    for (const int64_t extent : array.shape) bytes *= static_cast<size_t>(extent);
    array.bytes = all.substr(npy + 10 + header_size, bytes);
    if (array.bytes.size() != bytes) throw std::runtime_error("the candidates file is cut short");
    arrays[name.substr(0, name.rfind(".npy"))] = array;
    at = npy + 10 + header_size + bytes;
  }
  if (arrays.count("inquiry_start") == 0) throw std::runtime_error(path + " holds no candidates");
  return arrays;
}

// Text i of an array of UTF-32 strings; what is not ASCII becomes '?'.
std::string TextAt(const Array& names, size_t i) {
  const size_t width = std::stoul(names.type.substr(2));
  std::string text;
  for (size_t k = 0; k < width; ++k) {
    uint32_t code;
    std::memcpy(&code, names.bytes.data() + 4 * (i * width + k), 4);
    if (code == 0) break;
    text += code < 128 ? static_cast<char>(code) : '?';
  }
  return text;
}

int Route(int argc, char** argv) {
  std::vector<int64_t> ids;
  for (int i = 3; i < argc; ++i) ids.push_back(std::strtoll(argv[i], nullptr, 10));
  std::vector<int64_t> mask(ids.size(), 1);
  const std::vector<int64_t> shape = {1, static_cast<int64_t>(ids.size())};
  std::map<std::string, Array> table = ReadArchive(argv[2]);

  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "route");
  Ort::Session session(env, argv[1], Ort::SessionOptions());
  const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);

  std::vector<const char*> names = {"input_ids", "attention_mask"};
  std::vector<Ort::Value> inputs;
  for (std::vector<int64_t>* row : {&ids, &mask}) {
    inputs.push_back(Ort::Value::CreateTensor<int64_t>(memory, row->data(), row->size(),
                                                       shape.data(), shape.size()));
  }
  for (const char* name :
       {"inquiry_start", "memory"}) {  // the second only where the router has memory rows
    const auto found = table.find(name);
    if (found == table.end()) continue;
    Array& array = found->second;
    names.push_back(name);
    inputs.push_back(Ort::Value::CreateTensor<float>(
        memory, reinterpret_cast<float*>(array.bytes.data()), array.bytes.size() / sizeof(float),
        array.shape.data(), array.shape.size()));
  }
  const char* output = "probability";
  const std::vector<Ort::Value> outputs =
      session.Run(Ort::RunOptions(), names.data(), inputs.data(), inputs.size(), &output, 1);
  const float* probability = outputs[0].GetTensorData<float>();

  std::vector<size_t> order(static_cast<size_t>(table.at("names").shape.at(0)));
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(),
            [&](size_t a, size_t b) { return probability[a] > probability[b]; });
  for (const size_t m : order)
    std::printf("%.6f %s\n", probability[m], TextAt(table.at("names"), m).c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s GRAPH.onnx CANDIDATES.npz TOKEN_ID...\n", argv[0]);
    return 2;
  }
  try {
    return Route(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
