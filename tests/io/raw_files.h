#pragma once
// Files built byte by byte, so that tests can build broken ones.
#include <bit>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace nibble::test {

template <class T>
std::string bytes_of(T value) {
  std::string bytes(sizeof(T), '\0');
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

/// Length, header, data.
inline std::string safetensors_bytes(const std::string& header, size_t data_bytes) {
  return bytes_of(static_cast<uint64_t>(header.size())) + header + std::string(data_bytes, '\1');
}

inline std::string gguf_string(const std::string& text) { return bytes_of(static_cast<uint64_t>(text.size())) + text; }

/// Collects keys and tensors and lays them out as a GGUF file of version 3.
class GgufBuilder {
 public:
  GgufBuilder& u32(const std::string& key, uint32_t value) { return raw(key, 4, bytes_of(value)); }
  GgufBuilder& f32(const std::string& key, float value) { return raw(key, 6, bytes_of(value)); }
  GgufBuilder& text(const std::string& key, const std::string& value) { return raw(key, 8, gguf_string(value)); }
  GgufBuilder& texts(const std::string& key, const std::vector<std::string>& values) {
    std::string items = bytes_of(uint32_t{8}) + bytes_of(uint64_t{values.size()});
    for (const std::string& value : values) items += gguf_string(value);
    return raw(key, 9, items);
  }
  GgufBuilder& raw(const std::string& key, uint32_t type, const std::string& value) {
    keys_ += gguf_string(key) + bytes_of(type) + value;
    ++key_count_;
    return *this;
  }

  /// dims: fastest first, as the file has them.
  GgufBuilder& tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                      const std::string& data) {
    return tensor_at(name, dims, type, data_.size(), data);
  }
  GgufBuilder& tensor_at(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset,
                         const std::string& data) {
    infos_ += gguf_string(name) + bytes_of(static_cast<uint32_t>(dims.size()));
    for (const uint64_t dim : dims) infos_ += bytes_of(dim);
    infos_ += bytes_of(type) + bytes_of(offset);
    data_ += data;
    data_.resize((data_.size() + alignment_ - 1) / alignment_ * alignment_);
    ++tensor_count_;
    return *this;
  }
  GgufBuilder& zeros(const std::string& name, const std::vector<uint64_t>& dims) {
    uint64_t count = 1;
    for (const uint64_t dim : dims) count *= dim;
    return tensor(name, dims, 0, std::string(count * 4, '\0'));
  }

  std::string header() const {
    return "GGUF" + bytes_of(uint32_t{3}) + bytes_of(tensor_count_) + bytes_of(key_count_) + keys_ + infos_;
  }
  std::string build() const {
    std::string file = header();
    file.resize((file.size() + alignment_ - 1) / alignment_ * alignment_);
    return file + data_;
  }

 private:
  uint64_t alignment_ = 32;
  std::string keys_, infos_, data_;
  uint64_t key_count_ = 0, tensor_count_ = 0;
};

/// Changes a few bytes, or cuts, or repeats a piece: what a damaged or malicious file looks like.
inline std::string mutated(std::string bytes, std::mt19937& random) {
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % std::max<size_t>(n, 1)); };
  const size_t changes = 1 + below(4);
  for (size_t i = 0; i < changes && !bytes.empty(); ++i) {
    const size_t at = below(bytes.size());
    switch (random() % 5) {
      case 0: bytes[at] = static_cast<char>(random()); break;
      case 1: bytes[at] = static_cast<char>(bytes[at] ^ (1 << random() % 8)); break;
      case 2: bytes.resize(at); break;
      case 3: bytes.insert(at, bytes.substr(below(bytes.size()), 1 + below(16))); break;
      default: bytes.replace(at, std::min<size_t>(8, bytes.size() - at), bytes_of(uint64_t{1} << random() % 64)); break;
    }
  }
  return bytes;
}

}  // namespace nibble::test
