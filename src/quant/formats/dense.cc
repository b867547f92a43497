// fp32, fp16 and bf16: the matrix is an ordinary tensor, rounded to nearest even.
#include "quant/formats/formats.h"

namespace nibble {
namespace {

template <DType dtype>
uint64_t stored_bytes(const Shape& shape, const EncodeOptions&) {
  return static_cast<uint64_t>(element_count(shape)) * dtype_bytes(dtype);
}

template <DType dtype>
Format make() {
  return {.name = dtype_name(dtype),
          .bits_per_weight = 8.0 * static_cast<double>(dtype_bytes(dtype)),
          .readable_by = "nibble, transformers",
          .dense = dtype,
          .stored_bytes = stored_bytes<dtype>};
}

}  // namespace

Format dense_format(DType dtype) {
  if (dtype == DType::f16) return make<DType::f16>();
  if (dtype == DType::bf16) return make<DType::bf16>();
  return make<DType::f32>();
}

}  // namespace nibble
