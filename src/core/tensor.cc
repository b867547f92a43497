#include "core/tensor.h"

#include <cstring>

#include "core/checked.h"
#include "core/error.h"

namespace nibble {
namespace {

Tensor in(std::shared_ptr<Buffer> (*allocate)(size_t bytes), DType dtype, Shape shape) {
  Tensor t = Tensor::described(dtype, std::move(shape));
  t.buffer = allocate(checked_mul(static_cast<uint64_t>(t.count()), dtype_bytes(dtype), "tensor"));
  return t;
}

}  // namespace

int64_t element_count(const Shape& shape) {
  // Called often, so the text for messages is made only when one is needed.
  uint64_t count = 1;
  for (const int64_t dim : shape) {
    if (dim < 0) fail(ErrorCode::format, "shape " + shape_text(shape) + ": negative dimension");
    if (__builtin_mul_overflow(count, static_cast<uint64_t>(dim), &count)) {
      fail(ErrorCode::format, "shape " + shape_text(shape) + ": size overflows 64 bits");
    }
  }
  if (count > INT64_MAX) fail(ErrorCode::format, "shape " + shape_text(shape) + ": size is out of range");
  return static_cast<int64_t>(count);
}

std::string shape_text(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

Tensor::Tensor(DType dtype_, Shape shape_) : dtype(dtype_), shape(std::move(shape_)) {
  buffer = Buffer::allocate(checked_mul(static_cast<uint64_t>(count()), dtype_bytes(dtype), "tensor"));
}

Tensor Tensor::lasting(DType dtype, Shape shape) { return in(Buffer::allocate_lasting, dtype, std::move(shape)); }

Tensor Tensor::uninitialized(DType dtype, Shape shape) {
  return in(Buffer::allocate_uninitialized, dtype, std::move(shape));
}

Tensor Tensor::scratch(DType dtype, Shape shape) { return in(Buffer::allocate_scratch, dtype, std::move(shape)); }

Tensor Tensor::described(DType dtype, Shape shape) {
  Tensor t;
  t.dtype = dtype;
  t.shape = std::move(shape);
  return t;
}

Tensor Tensor::from(std::span<const float> values, Shape shape) {
  Tensor t(DType::f32, std::move(shape));
  if (t.bytes() != values.size_bytes()) fail(ErrorCode::internal, "Tensor::from: wrong number of values");
  if (!values.empty()) std::memcpy(t.raw(), values.data(), values.size_bytes());
  return t;
}

Tensor Tensor::from(std::span<const uint8_t> values, Shape shape) {
  Tensor t(DType::u8, std::move(shape));
  if (t.bytes() != values.size_bytes()) fail(ErrorCode::internal, "Tensor::from: wrong number of values");
  if (!values.empty()) std::memcpy(t.raw(), values.data(), values.size_bytes());
  return t;
}

Tensor Tensor::slice_rows(int64_t begin, int64_t end) const {
  Tensor view = *this;
  view.shape[0] = end - begin;
  view.offset += static_cast<size_t>(begin * cols()) * dtype_bytes(dtype);
  return view;
}

Tensor Tensor::reshaped(Shape new_shape) const {
  if (element_count(new_shape) != count()) {
    fail(ErrorCode::internal, "reshape " + shape_text(shape) + " to " + shape_text(new_shape));
  }
  Tensor view = *this;
  view.shape = std::move(new_shape);
  return view;
}

Tensor Tensor::transposed() const {
  const size_t size = dtype_bytes(dtype);
  const int64_t height = rows(), width = cols();
  Tensor out(dtype, {width, height});
  for (int64_t r = 0; r < height; ++r) {
    for (int64_t c = 0; c < width; ++c) {
      std::memcpy(out.raw() + static_cast<size_t>(c * height + r) * size,
                  raw() + static_cast<size_t>(r * width + c) * size, size);
    }
  }
  return out;
}

Tensor Tensor::cast(DType to) const {
  if (to == dtype) return *this;
  Tensor out(to, shape);
  if (dtype == DType::f32) {
    from_f32(to, f32(), out.raw(), count());
  } else if (to == DType::f32) {
    to_f32(dtype, raw(), out.f32(), count());
  } else {
    return cast(DType::f32).cast(to);
  }
  return out;
}

}  // namespace nibble
