#include "ops/kv_cache.h"

#include <algorithm>
#include <string>

#include "core/error.h"
#include "core/profile.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr float kCodes = 127.0f;  // -127 .. 127

/// count values as the cache keeps them; the scale of int8 goes to *scale.
void encode(DType dtype, const float* x, int64_t count, std::byte* out, float* scale) {
  const Kernels& k = kernels();
  if (dtype == DType::f32) std::copy_n(x, count, reinterpret_cast<float*>(out));
  if (dtype == DType::f16) k.f32_to_f16(x, reinterpret_cast<uint16_t*>(out), count);
  if (dtype == DType::bf16) k.f32_to_bf16(x, reinterpret_cast<uint16_t*>(out), count);
  if (dtype != DType::i8) return;
  const float largest = k.absmax(x, count);
  *scale = largest / kCodes;
  k.quantize_i8(x, kCodes / largest, reinterpret_cast<int8_t*>(out), count);  // a zero vector: 0 * inf gives code 0
}

}  // namespace

void check_kv_dtype(DType dtype) {
  for (const DType known : {DType::f32, DType::f16, DType::bf16, DType::i8}) {
    if (dtype == known) return;
  }
  fail(ErrorCode::invalid_argument,
       "kv_dtype: found " + std::string(dtype_name(dtype)) + ", expected fp32, fp16, bf16 or int8");
}

KvCache::KvCache(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity, DType dtype)
    : kv_heads_(kv_heads), head_dim_(head_dim), capacity_(capacity), dtype_(dtype) {
  check_kv_dtype(dtype);
  const auto side = [&] {
    return Side{.data = Tensor::lasting(dtype, {kv_heads, capacity, head_dim}),
                .scales = dtype == DType::i8 ? Tensor(DType::f32, {kv_heads, capacity}) : Tensor()};
  };
  for (int64_t i = 0; i < layers; ++i) {
    keys_.push_back(side());
    values_.push_back(side());
  }
}

uint64_t KvCache::bytes(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity, DType dtype) {
  const uint64_t vector = static_cast<uint64_t>(head_dim) * dtype_bytes(dtype);
  const uint64_t scale = dtype == DType::i8 ? sizeof(float) : 0;
  return 2 * static_cast<uint64_t>(layers * kv_heads * capacity) * (vector + scale);
}

uint64_t KvCache::bytes() const {
  uint64_t total = 0;
  for (const auto* sides : {&keys_, &values_}) {
    for (const Side& side : *sides) total += side.data.bytes() + (side.scales.empty() ? 0 : side.scales.bytes());
  }
  return total;
}

void KvCache::write(int64_t layer, const Tensor& k, const Tensor& v) {
  const ProfileScope scope("cache");
  if (length_ + k.rows() > capacity_) fail(ErrorCode::internal, "KvCache: written beyond its capacity");
  write_side(keys_[static_cast<size_t>(layer)], k);
  write_side(values_[static_cast<size_t>(layer)], v);
}

void KvCache::write_side(Side& side, const Tensor& x) {
  const size_t vector = static_cast<size_t>(head_dim_) * dtype_bytes(dtype_);
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t h = 0; h < kv_heads_; ++h) {
      const int64_t at = h * capacity_ + length_ + t;
      float* scale = side.scales.empty() ? nullptr : side.scales.f32() + at;
      encode(dtype_, x.f32() + (t * kv_heads_ + h) * head_dim_, head_dim_,
             side.data.raw() + static_cast<size_t>(at) * vector, scale);
    }
  }
}

KvCache::Rows KvCache::rows(const Side& side, int64_t head, int64_t begin) const {
  const int64_t at = head * capacity_ + begin;
  return {.dtype = dtype_,
          .data = side.data.raw() + static_cast<size_t>(at * head_dim_) * dtype_bytes(dtype_),
          .scales = side.scales.empty() ? nullptr : side.scales.f32() + at};
}

KvCache::Rows KvCache::keys(int64_t layer, int64_t head, int64_t begin) const {
  return rows(keys_[static_cast<size_t>(layer)], head, begin);
}

KvCache::Rows KvCache::values(int64_t layer, int64_t head, int64_t begin) const {
  return rows(values_[static_cast<size_t>(layer)], head, begin);
}

}  // namespace nibble
