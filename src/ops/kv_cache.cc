#include "ops/kv_cache.h"

#include <algorithm>
#include <string>

#include "core/checked.h"
#include "core/error.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr float kCodes = 127.0f;  // -127 .. 127
constexpr int64_t kWriteGrain = 64;

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

/// A vector's components to where the block of its key has them.
template <class T>
void spread(const std::byte* from, int64_t count, std::byte* to) {
  const auto* in = reinterpret_cast<const T*>(from);
  auto* out = reinterpret_cast<T*>(to);
  for (int64_t i = 0; i < count; ++i) out[i * KvCache::kKeyColumns] = in[i];
}

void spread(size_t component_bytes, const std::byte* from, int64_t count, std::byte* to) {
  if (component_bytes == 1) return spread<uint8_t>(from, count, to);
  if (component_bytes == 2) return spread<uint16_t>(from, count, to);
  spread<uint32_t>(from, count, to);
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
  const auto side = [&](const Shape& shape) {
    return Side{.data = Tensor::lasting(dtype, shape),
                .scales = dtype == DType::i8 ? Tensor(DType::f32, {kv_heads, capacity}) : Tensor()};
  };
  for (int64_t i = 0; i < layers; ++i) {
    keys_.push_back(side({kv_heads, ceil_div(capacity, kKeyColumns), head_dim, kKeyColumns}));
    values_.push_back(side({kv_heads, capacity, head_dim}));
  }
}

uint64_t KvCache::bytes(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity, DType dtype) {
  const auto vectors = static_cast<uint64_t>(round_up(capacity, kKeyColumns) + capacity);
  const uint64_t scales = dtype == DType::i8 ? 2 * static_cast<uint64_t>(capacity) * sizeof(float) : 0;
  return static_cast<uint64_t>(layers * kv_heads) *
         (vectors * static_cast<uint64_t>(head_dim) * dtype_bytes(dtype) + scales);
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
  Side &keys = keys_[static_cast<size_t>(layer)], &values = values_[static_cast<size_t>(layer)];
  const size_t component = dtype_bytes(dtype_);
  const auto scale_at = [](Side& side, int64_t at) { return side.scales.empty() ? nullptr : side.scales.f32() + at; };
  parallel_for(kv_heads_ * k.rows(), kWriteGrain, [&](int64_t begin, int64_t end) {
    std::vector<std::byte> key(static_cast<size_t>(head_dim_) * component);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t h = i / k.rows(), t = i % k.rows();
      const int64_t from = (t * kv_heads_ + h) * head_dim_, position = length_ + t, at = h * capacity_ + position;
      encode(dtype_, k.f32() + from, head_dim_, key.data(), scale_at(keys, at));
      spread(component, key.data(), head_dim_, keys.data.raw() + static_cast<size_t>(key_at(h, position)) * component);
      encode(dtype_, v.f32() + from, head_dim_, values.data.raw() + static_cast<size_t>(at * head_dim_) * component,
             scale_at(values, at));
    }
  });
}

/// Of its first component.
int64_t KvCache::key_at(int64_t head, int64_t position) const {
  const int64_t block = head * ceil_div(capacity_, kKeyColumns) + position / kKeyColumns;
  return block * head_dim_ * kKeyColumns + position % kKeyColumns;
}

KvCache::Rows KvCache::rows(const Side& side, int64_t head, int64_t begin, int64_t first_value) const {
  return {.dtype = dtype_,
          .data = side.data.raw() + static_cast<size_t>(first_value) * dtype_bytes(dtype_),
          .scales = side.scales.empty() ? nullptr : side.scales.f32() + head * capacity_ + begin};
}

KvCache::Rows KvCache::keys(int64_t layer, int64_t head, int64_t begin) const {
  return rows(keys_[static_cast<size_t>(layer)], head, begin, key_at(head, begin));
}

KvCache::Rows KvCache::values(int64_t layer, int64_t head, int64_t begin) const {
  return rows(values_[static_cast<size_t>(layer)], head, begin, (head * capacity_ + begin) * head_dim_);
}

}  // namespace nibble
