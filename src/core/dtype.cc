#include "core/dtype.h"

#include <array>
#include <cstring>
#include <string>

#include "core/error.h"

namespace nibble {
namespace {

struct DTypeRow {
  DType dtype;
  size_t bytes;
  std::string_view name, torch_name, safetensors_name;
};

constexpr std::array<DTypeRow, 10> kDTypes = {{
    {DType::f32, 4, "fp32", "float32", "F32"},
    {DType::f16, 2, "fp16", "float16", "F16"},
    {DType::bf16, 2, "bf16", "bfloat16", "BF16"},
    {DType::f64, 8, "fp64", "float64", "F64"},
    {DType::i8, 1, "int8", "int8", "I8"},
    {DType::u8, 1, "uint8", "uint8", "U8"},
    {DType::i16, 2, "int16", "int16", "I16"},
    {DType::i32, 4, "int32", "int32", "I32"},
    {DType::i64, 8, "int64", "int64", "I64"},
    {DType::boolean, 1, "bool", "bool", "BOOL"},
}};

const DTypeRow& row(DType dtype) { return kDTypes[static_cast<size_t>(dtype)]; }

template <class Stored, class Convert>
void widen(const void* src, float* dst, int64_t count, Convert convert) {
  const auto* bytes = static_cast<const unsigned char*>(src);
  for (int64_t i = 0; i < count; ++i) {
    Stored value;
    std::memcpy(&value, bytes + static_cast<size_t>(i) * sizeof(Stored), sizeof(Stored));
    dst[i] = convert(value);
  }
}

template <class Stored, class Convert>
void shrink(const float* src, void* dst, int64_t count, Convert convert) {
  auto* bytes = static_cast<unsigned char*>(dst);
  for (int64_t i = 0; i < count; ++i) {
    const Stored value = convert(src[i]);
    std::memcpy(bytes + static_cast<size_t>(i) * sizeof(Stored), &value, sizeof(Stored));
  }
}

}  // namespace

size_t dtype_bytes(DType dtype) { return row(dtype).bytes; }
std::string_view dtype_name(DType dtype) { return row(dtype).name; }
std::string_view torch_dtype_name(DType dtype) { return row(dtype).torch_name; }
std::string_view safetensors_name(DType dtype) { return row(dtype).safetensors_name; }

bool is_float(DType dtype) {
  return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16 || dtype == DType::f64;
}

DType parse_dtype(std::string_view name) {
  std::string known;
  for (const DTypeRow& r : kDTypes) {
    if (name == r.name || name == r.torch_name) return r.dtype;
    known += (known.empty() ? "" : ", ") + std::string(r.name);
  }
  fail(ErrorCode::invalid_argument, "unknown dtype '" + std::string(name) + "', expected one of " + known);
}

std::optional<DType> dtype_from_safetensors(std::string_view name) {
  for (const DTypeRow& r : kDTypes) {
    if (name == r.safetensors_name) return r.dtype;
  }
  return std::nullopt;
}

void to_f32(DType dtype, const void* src, float* dst, int64_t count) {
  switch (dtype) {
    case DType::f32: std::memcpy(dst, src, static_cast<size_t>(count) * 4); return;
    case DType::f16: widen<uint16_t>(src, dst, count, f16_to_f32); return;
    case DType::bf16: widen<uint16_t>(src, dst, count, bf16_to_f32); return;
    case DType::f64: widen<double>(src, dst, count, [](double x) { return static_cast<float>(x); }); return;
    default: fail(ErrorCode::internal, "to_f32: " + std::string(dtype_name(dtype)) + " is not a float type");
  }
}

void from_f32(DType dtype, const float* src, void* dst, int64_t count) {
  switch (dtype) {
    case DType::f32: std::memcpy(dst, src, static_cast<size_t>(count) * 4); return;
    case DType::f16: shrink<uint16_t>(src, dst, count, f32_to_f16); return;
    case DType::bf16: shrink<uint16_t>(src, dst, count, f32_to_bf16); return;
    case DType::f64: shrink<double>(src, dst, count, [](float x) { return static_cast<double>(x); }); return;
    default: fail(ErrorCode::internal, "from_f32: " + std::string(dtype_name(dtype)) + " is not a float type");
  }
}

}  // namespace nibble
