// fp32, fp16 and bf16: the matrix is an ordinary tensor, rounded to nearest even.
#include "quant/formats/formats.h"

namespace nibble {

Format dense_format(DType dtype) {
  Format format;
  format.name = dtype_name(dtype);
  format.bits_per_weight = 8.0 * static_cast<double>(dtype_bytes(dtype));
  format.readable_by = "nibble, transformers";
  format.dense = dtype;
  return format;
}

}  // namespace nibble
