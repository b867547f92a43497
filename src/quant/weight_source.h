#pragma once
// Where weights come from, as the models see it: tensors by their Hugging Face names, dense or quantized, read one at a
// time. Folders, bitsandbytes checkpoints and GGUF files all look like this (io/ implements it).
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quant/format.h"

namespace nibble {

/// A logical tensor: the pieces of a quantized matrix count as one.
struct SourceTensor {
  std::string name;    // "model.layers.0.self_attn.q_proj.weight"
  Shape shape;         // of the matrix it stands for, [out, in] for a Linear
  std::string format;  // "fp32", "nf4", "q4_1", ...: a name of the format table
  uint64_t bytes = 0;  // stored, all pieces together
};

/// Not quantized: load() gives a Tensor.
inline bool is_dense(const SourceTensor& tensor) {
  const Format* format = find_format_or_null(tensor.format);  // null: an element type that no format has, like i64
  return format == nullptr || format->dense.has_value();
}

/// The element type of the stored tensor; f32 for a quantized one.
DType stored_dtype(const SourceTensor& tensor);

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  /// In the order of the files.
  virtual const std::vector<SourceTensor>& tensors() const = 0;
  /// Null when there is no such tensor.
  virtual const SourceTensor* find(std::string_view name) const = 0;
  /// One tensor, read into memory of its own or, where its bytes can be used as they lie in the file, mapped.
  /// Thread-safe. @throws Error{format, io, resources}
  virtual Weight load(std::string_view name, Residency residency) const = 0;
  Weight load(std::string_view name) const { return load(name, Residency::memory); }
  /// The file a tensor comes from, for messages.
  virtual std::string origin(std::string_view name) const = 0;
};

}  // namespace nibble
