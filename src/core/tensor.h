#pragma once
// Dense tensors: a dtype, a shape and a share of a buffer, always contiguous and row-major. Views are row ranges.
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/buffer.h"
#include "core/dtype.h"

namespace nibble {

using Shape = std::vector<int64_t>;

/// The product of the dimensions (1 for rank 0). @throws Error{format} on a negative dimension or overflow.
int64_t element_count(const Shape& shape);

/// "[4096, 1024]"
std::string shape_text(const Shape& shape);

struct Tensor {
  DType dtype = DType::f32;
  Shape shape;
  std::shared_ptr<Buffer> buffer;
  size_t offset = 0;  // bytes into the buffer

  Tensor() = default;
  /// Zero-filled.
  Tensor(DType dtype, Shape shape);

  /// Zero-filled, for what stays: see Buffer::allocate_lasting().
  static Tensor lasting(DType dtype, Shape shape);
  /// For a result that will be written as a whole.
  static Tensor uninitialized(DType dtype, Shape shape);
  /// For what a call works in: see Buffer::allocate_scratch().
  static Tensor scratch(DType dtype, Shape shape);
  /// A dtype and a shape without memory: what a tensor will be.
  static Tensor described(DType dtype, Shape shape);
  static Tensor from(std::span<const float> values, Shape shape);
  static Tensor from(std::span<const uint8_t> values, Shape shape);
  /// Rank-1 f32.
  static Tensor from(std::span<const float> values) { return from(values, {static_cast<int64_t>(values.size())}); }

  bool empty() const { return buffer == nullptr; }
  int64_t count() const { return element_count(shape); }
  size_t bytes() const { return static_cast<size_t>(count()) * dtype_bytes(dtype); }
  int64_t dim(size_t i) const { return shape.at(i); }
  int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  /// Elements of one row: everything but the first dimension.
  int64_t cols() const { return rows() == 0 ? 0 : count() / rows(); }

  std::byte* raw() { return buffer->data() + offset; }
  const std::byte* raw() const { return buffer->data() + offset; }
  /// The elements as T; sizeof(T) must be the dtype's size (uint16_t for f16 and bf16).
  template <class T>
  T* data() {
    return reinterpret_cast<T*>(raw());
  }
  template <class T>
  const T* data() const {
    return reinterpret_cast<const T*>(raw());
  }
  float* f32() { return data<float>(); }
  const float* f32() const { return data<float>(); }

  /// Rows [begin, end) sharing this tensor's memory.
  Tensor slice_rows(int64_t begin, int64_t end) const;
  /// The same elements under another shape of equal count.
  Tensor reshaped(Shape new_shape) const;
  /// A copy of a matrix with rows and columns exchanged.
  Tensor transposed() const;
  /// A copy in another float dtype (or the tensor itself when it has it already).
  Tensor cast(DType to) const;
};

}  // namespace nibble
