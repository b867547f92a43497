#pragma once
// GGUF files, versions 2 and 3, little-endian. Metadata and the list of tensors are checked completely when a file is
// opened; tensors are read one at a time. Names and metadata are llama.cpp's: gguf_names.h translates them.
// Format: github.com/ggml-org/ggml, docs/gguf.md.
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "core/tensor.h"

namespace nibble {

/// One of ggml's element types.
struct GgufType {
  uint32_t id;
  std::string_view name;  // lower-case: "q4_0", "f16"; of block types the name in the format table
  uint64_t block_values;  // 1 for dense types
  uint64_t block_bytes;
};

struct GgufTensor {
  std::string name;
  Shape shape;  // in torch's order: a Linear is [out, in]
  const GgufType* type = nullptr;
  uint64_t begin = 0;  // first byte in the file
  uint64_t bytes = 0;

  bool is_block_type() const { return type->block_values > 1; }
  /// "fp32", "q4_0", ...: the name in the format table; for integers and f64 ggml's name.
  std::string format_name() const;
};

class GgufFile {
 public:
  /// @throws Error{io, format}; Error{unsupported} for big-endian files, version 1 and unknown element types.
  explicit GgufFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  /// An object with all keys in the order of the file; arrays are arrays, strings keep their bytes even when these are
  /// not UTF-8.
  const Json& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// Null when there is no such tensor.
  const GgufTensor* find(std::string_view name) const;

  /// Dense types: a tensor of that element type. Block types: u8 [rows, row_bytes].
  Tensor load_raw(std::string_view name, Residency residency = Residency::memory) const;

 private:
  File file_;
  Json metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, size_t> index_;  // name (held by tensors_) -> position in tensors_
};

/// The files of a model that is split into NAME-00001-of-0000N.gguf, first one first; {first} when it is not split.
/// @throws Error{format, io} when `first` is not the first part or a part is missing or does not belong.
std::vector<GgufFile> open_gguf_parts(const std::filesystem::path& first);

}  // namespace nibble
