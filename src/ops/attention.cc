#include "ops/attention.h"

#include <algorithm>
#include <cmath>

#include "core/checked.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "kernels/kernels.h"
#include "ops/attention_backward.h"

namespace nibble {
namespace {

constexpr int64_t kTokenBlock = 32;

/// A stride that is a multiple of 16 floats but never of a large power of two: columns of the transposed values would
/// otherwise fall into the same few cache sets.
int64_t value_stride(int64_t capacity) { return round_up(capacity, 64) + 16; }

/// One head and one block of query tokens.
struct Block {
  int64_t head, first_token, tokens;
};

/// In place: scaled, capped, softmax.
void scores_to_weights(float* scores, int64_t count, const AttentionOptions& options) {
  cap_scores(scores, count, options);
  kernels().softmax(scores, count);
}

void attend(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionOptions& options, const Block& block,
            Tensor& out) {
  static thread_local std::vector<float> scores, key_room, value_room;
  const int64_t head_dim = cache.head_dim(), width = options.heads * head_dim;
  const int64_t kv_head = block.head / (options.heads / cache.kv_heads());
  const int64_t first = cache.length() + block.first_token;  // position of the block's first token
  const auto window_begin = [&](int64_t p) {
    return options.window ? std::max<int64_t>(0, p - options.window + 1) : 0;
  };
  const int64_t begin = window_begin(first), end = first + block.tokens, span = end - begin;
  const float* queries = q.f32() + block.first_token * width + block.head * head_dim;

  scores.resize(static_cast<size_t>(block.tokens * span));
  kernels().matmul_f32({.x = queries,
                        .w = cache.keys(layer, kv_head, begin, end, key_room),
                        .y = scores.data(),
                        .tokens = block.tokens,
                        .rows = span,
                        .k = head_dim,
                        .ldx = width,
                        .ldw = head_dim,
                        .ldy = span});
  for (int64_t t = 0; t < block.tokens; ++t) {
    float* row = scores.data() + t * span;
    const int64_t from = window_begin(first + t) - begin, to = first + t + 1 - begin;
    std::fill(row, row + from, 0.0f);
    std::fill(row + to, row + span, 0.0f);
    scores_to_weights(row + from, to - from, options);
  }
  const KvCache::Values values = cache.values(layer, kv_head, begin, end, value_room);
  kernels().matmul_f32({.x = scores.data(),
                        .w = values.data,
                        .y = out.f32() + block.first_token * width + block.head * head_dim,
                        .tokens = block.tokens,
                        .rows = head_dim,
                        .k = span,
                        .ldx = span,
                        .ldw = values.stride,
                        .ldy = width});
}

/// Element `index` of a cache tensor.
void store(Tensor& target, int64_t index, float value) {
  if (target.dtype == DType::f32) target.f32()[index] = value;
  if (target.dtype == DType::f16) target.data<uint16_t>()[index] = f32_to_f16(value);
  if (target.dtype == DType::bf16) target.data<uint16_t>()[index] = f32_to_bf16(value);
}

void widen(const Tensor& source, int64_t at, int64_t count, float* out) {
  const auto* half = source.data<uint16_t>() + at;
  (source.dtype == DType::f16 ? kernels().f16_to_f32 : kernels().bf16_to_f32)(half, out, count);
}

}  // namespace

KvCache::KvCache(int64_t layers, int64_t kv_heads, int64_t head_dim, int64_t capacity, DType dtype)
    : kv_heads_(kv_heads), head_dim_(head_dim), capacity_(capacity), stride_(value_stride(capacity)), dtype_(dtype) {
  for (int64_t i = 0; i < layers; ++i) {
    keys_.emplace_back(dtype, Shape{kv_heads, capacity, head_dim});
    values_.emplace_back(dtype, Shape{kv_heads, head_dim, stride_});
  }
}

uint64_t KvCache::bytes() const {
  uint64_t total = 0;
  for (const auto* list : {&keys_, &values_}) {
    for (const Tensor& t : *list) total += t.bytes();
  }
  return total;
}

void KvCache::write(int64_t layer, const Tensor& k, const Tensor& v) {
  const ProfileScope scope("cache");
  const int64_t tokens = k.rows(), width = kv_heads_ * head_dim_;
  if (length_ + tokens > capacity_) fail(ErrorCode::internal, "KvCache: written beyond its capacity");
  auto& keys = keys_[static_cast<size_t>(layer)];
  auto& values = values_[static_cast<size_t>(layer)];
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t position = length_ + t;
    for (int64_t h = 0; h < kv_heads_; ++h) {
      const int64_t from = t * width + h * head_dim_;
      for (int64_t d = 0; d < head_dim_; ++d) {
        store(keys, (h * capacity_ + position) * head_dim_ + d, k.f32()[from + d]);
        store(values, (h * head_dim_ + d) * stride_ + position, v.f32()[from + d]);
      }
    }
  }
}

const float* KvCache::keys(int64_t layer, int64_t head, int64_t begin, int64_t end, std::vector<float>& room) const {
  const Tensor& keys = keys_[static_cast<size_t>(layer)];
  const int64_t at = (head * capacity_ + begin) * head_dim_, count = (end - begin) * head_dim_;
  if (dtype_ == DType::f32) return keys.f32() + at;
  room.resize(static_cast<size_t>(count));
  widen(keys, at, count, room.data());
  return room.data();
}

KvCache::Values KvCache::values(int64_t layer, int64_t head, int64_t begin, int64_t end,
                                std::vector<float>& room) const {
  const Tensor& values = values_[static_cast<size_t>(layer)];
  const int64_t at = head * head_dim_ * stride_ + begin, span = end - begin;
  if (dtype_ == DType::f32) return {values.f32() + at, stride_};
  room.resize(static_cast<size_t>(span * head_dim_));
  for (int64_t d = 0; d < head_dim_; ++d) widen(values, at + d * stride_, span, room.data() + d * span);
  return {room.data(), span};
}

namespace {

void attend(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionOptions& options, Tensor& out) {
  const int64_t blocks = ceil_div(q.rows(), kTokenBlock);
  parallel_for(options.heads * blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i / options.heads * kTokenBlock;
      attend(q, cache, layer, options,
             {.head = i % options.heads, .first_token = first, .tokens = std::min(kTokenBlock, q.rows() - first)}, out);
    }
  });
}

/// One head of one sequence.
struct SequenceHead {
  int64_t head, first, length;  // first: its first token
};

void attend_sequence(const Tensor& q, const Tensor& k, const Tensor& v, const SequenceHead& part,
                     const AttentionOptions& options, Tensor& out) {
  static thread_local std::vector<float> scores, values;
  const auto [head, first, length] = part;
  const int64_t width = q.cols(), head_dim = width / options.heads, at = first * width + head * head_dim;
  scores.resize(static_cast<size_t>(length * length));
  kernels().matmul_f32({.x = q.f32() + at,
                        .w = k.f32() + at,
                        .y = scores.data(),
                        .tokens = length,
                        .rows = length,
                        .k = head_dim,
                        .ldx = width,
                        .ldw = width,
                        .ldy = length});
  for (int64_t t = 0; t < length; ++t) scores_to_weights(scores.data() + t * length, length, options);
  values.resize(static_cast<size_t>(head_dim * length));
  for (int64_t t = 0; t < length; ++t) {
    for (int64_t d = 0; d < head_dim; ++d) values[static_cast<size_t>(d * length + t)] = v.f32()[at + t * width + d];
  }
  kernels().matmul_f32({.x = scores.data(),
                        .w = values.data(),
                        .y = out.f32() + at,
                        .tokens = length,
                        .rows = head_dim,
                        .k = length,
                        .ldx = length,
                        .ldw = length,
                        .ldy = width});
}

}  // namespace

Tensor attention(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionOptions& options) {
  const ProfileScope scope("attention");
  Tensor out(DType::f32, q.shape);
  attend(q, cache, layer, options, out);
  return out;
}

Tensor causal_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> lengths,
                        const AttentionOptions& options, Tape* tape) {
  const ProfileScope scope("attention");
  Tensor out(DType::f32, q.shape);
  const int64_t head_dim = q.cols() / options.heads;
  int64_t first = 0;
  for (const int64_t length : lengths) {
    const int64_t end = first + length;
    KvCache cache(1, k.cols() / head_dim, head_dim, length);
    cache.write(0, k.slice_rows(first, end), v.slice_rows(first, end));
    Tensor rows = out.slice_rows(first, end);
    attend(q.slice_rows(first, end), cache, 0, options, rows);
    first = end;
  }
  record_attention({.q = q, .k = k, .v = v, .lengths = {lengths.begin(), lengths.end()}, .options = options}, out,
                   tape);
  return out;
}

Tensor bidirectional_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> lengths,
                               const AttentionOptions& options, Tape* tape) {
  const ProfileScope scope("attention");
  Tensor out(DType::f32, q.shape);
  std::vector<int64_t> starts = {0};
  for (const int64_t length : lengths) starts.push_back(starts.back() + length);
  const auto sequences = static_cast<int64_t>(lengths.size());
  parallel_for(sequences * options.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto s = static_cast<size_t>(i / options.heads);
      attend_sequence(q, k, v, {.head = i % options.heads, .first = starts[s], .length = lengths[s]}, options, out);
    }
  });
  record_attention(
      {.q = q, .k = k, .v = v, .lengths = {lengths.begin(), lengths.end()}, .options = options, .causal = false}, out,
      tape);
  return out;
}

}  // namespace nibble
