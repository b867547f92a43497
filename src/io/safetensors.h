#pragma once
// safetensors files: 8 bytes of little-endian header length, a JSON header, then the tensors without holes. The header
// is checked completely when a file is opened; tensors are read one at a time into memory of their own.
// Format: github.com/huggingface/safetensors, README.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/file.h"
#include "core/output.h"
#include "core/tensor.h"

namespace nibble {

struct SafetensorsEntry {
  std::string name;
  std::string dtype;  // the header's word: "BF16"
  Shape shape;
  uint64_t begin = 0, end = 0;  // byte range in the file

  uint64_t bytes() const { return end - begin; }
};

class SafetensorsFile {
 public:
  /// @throws Error{io, format} naming the first rule of the format that the file breaks.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  /// In the order of their data.
  const std::vector<SafetensorsEntry>& entries() const { return entries_; }
  /// Null when there is no such tensor.
  const SafetensorsEntry* find(std::string_view name) const;
  /// The header's "__metadata__".
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// @throws Error{format} for an unknown name, Error{unsupported} for an element type that Tensor does not have.
  Tensor load(std::string_view name, Residency residency = Residency::memory) const;
  /// The same bytes as u8 [size], whatever the element type.
  Tensor load_bytes(std::string_view name, Residency residency = Residency::memory) const;

 private:
  const SafetensorsEntry& require(std::string_view name) const;

  File file_;
  std::vector<SafetensorsEntry> entries_;
  std::unordered_map<std::string_view, size_t> index_;  // name (held by entries_) -> position in entries_
  std::map<std::string, std::string> metadata_;
};

struct TensorDeclaration {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

/// Bytes of the file that a SafetensorsWriter makes of these tensors, header included.
uint64_t safetensors_file_bytes(const std::vector<TensorDeclaration>& tensors,
                                const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

/// Writes a file whose tensors are declared first and then written one at a time, in any order. In the file those with
/// wider elements come first, so that every tensor is aligned to its element size.
class SafetensorsWriter {
 public:
  /// @throws Error{internal} for a name declared twice, Error{resources} when the file cannot be created.
  SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorDeclaration>& tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  /// @throws Error{internal} when the tensor was not declared so or was written before.
  void write(const std::string& name, const Tensor& tensor);
  /// Checks that all tensors were written, syncs and closes. Without it the file is incomplete.
  void finish();
  /// Of the whole file.
  uint64_t bytes() const { return bytes_; }

 private:
  struct Slot {
    TensorDeclaration tensor;
    uint64_t begin = 0;  // in the file
    bool written = false;
  };

  OutputFile out_;
  std::string name_;
  std::map<std::string, Slot> slots_;
  uint64_t bytes_ = 0;
};

}  // namespace nibble
