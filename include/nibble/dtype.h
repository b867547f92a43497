#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace nibble {

/// Element types of dense tensors. f16 is IEEE binary16, bf16 the upper half of a binary32.
enum class DType : uint8_t { f32, f16, bf16, f64, i8, u8, i16, i32, i64, boolean };

/// Bytes per element.
size_t dtype_bytes(DType dtype);

/// The command line's and configuration files' word: "fp32", "fp16", "bf16", "int8", ...
std::string_view dtype_name(DType dtype);

/// torch's word, as config.json has it: "float32", "float16", "bfloat16", ...
std::string_view torch_dtype_name(DType dtype);

/// Parses either spelling ("bf16" or "bfloat16"). @throws Error{invalid_argument} naming the known words.
DType parse_dtype(std::string_view name);

}  // namespace nibble
