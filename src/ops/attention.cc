// Attention over a cache runs over keys in blocks, each a small softmax of its own: with the scores s of a block,
//
//   m = max s, l = sum e^(s - m), o = sum e^(s - m) v
//
// and two blocks add up as m = max(m1, m2), l = l1 e^(m1 - m) + l2 e^(m2 - m), o alike; the result is o / l (online
// softmax, arXiv 1805.02867). The cuts between blocks lie at fixed positions and blocks are added in their order, so a
// token's bits depend neither on the threads nor on the tokens that come with it.
//
// Query heads that share a key head are computed together: a block of keys and values is read once for all of them.
#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <vector>

#include "core/checked.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "kernels/kernels.h"
#include "ops/attention_backward.h"

namespace nibble {
namespace {

constexpr int64_t kKeyBlock = 256;  // keys and values of a head of 64 in f32: 128 KiB, within the second-level cache
constexpr int64_t kQueryRows = 32;  // of tokens and heads that go through a block of keys together
constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The queries of some tokens that share a key head: a row for each token and head.
struct QueryBlock {
  int64_t kv_head, first_token, tokens;
};

/// What a row has gathered: max, sum, and head_dim weighted values, one after the other.
constexpr int64_t kMax = 0, kSum = 1, kValues = 2;

/// Adds a block of keys to what a row has gathered from those before it.
void add_part(const float* part, int64_t head_dim, float* total) {
  if (part[kSum] == 0) return;  // the row sees none of its keys
  const float max = std::max(total[kMax], part[kMax]);
  const float old_share = std::exp(total[kMax] - max), new_share = std::exp(part[kMax] - max);
  total[kMax] = max;
  for (int64_t i = kSum; i < kValues + head_dim; ++i) total[i] = total[i] * old_share + part[i] * new_share;
}

/// y = x rows, with rows of a dtype.
using SumOfRows = void (*)(const KvCache::Rows& rows, const RowSums<float>& p);

template <class W, void (*Kernels::*kSum)(const RowSums<W>&) noexcept>
void sum_rows(const KvCache::Rows& rows, const RowSums<float>& p) {
  const auto* w = reinterpret_cast<const W*>(rows.data);
  (kernels().*kSum)({p.x, w, p.y, p.tokens, p.k, p.cols, p.ldx, p.ldw, p.ldy});
}

struct RowKernel {
  DType dtype;
  SumOfRows sum;
};
constexpr RowKernel kRowKernels[] = {
    {DType::f32, sum_rows<float, &Kernels::sum_rows_f32>},
    {DType::f16, sum_rows<uint16_t, &Kernels::sum_rows_f16>},
    {DType::bf16, sum_rows<uint16_t, &Kernels::sum_rows_bf16>},
    {DType::i8, sum_rows<int8_t, &Kernels::sum_rows_i8>},
};

SumOfRows sum_of_rows(DType dtype) {
  return std::find_if(std::begin(kRowKernels), std::end(kRowKernels),
                      [&](const RowKernel& row) { return row.dtype == dtype; })
      ->sum;
}

/// One call over one layer of a cache.
class CachedAttention {
 public:
  CachedAttention(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionOptions& options, Tensor& out)
      : q_(q), cache_(cache), layer_(layer), options_(options), out_(out) {}

  void run() const {
    const int64_t tokens = q_.rows(), step = std::max<int64_t>(1, kQueryRows / group_);
    if (tokens <= step) return run_by_keys({.kv_head = 0, .first_token = 0, .tokens = tokens});
    const int64_t steps = ceil_div(tokens, step);
    parallel_for(cache_.kv_heads() * steps, 1, [&](int64_t begin, int64_t end) {
      static thread_local std::vector<float> part, total;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t first = i / cache_.kv_heads() * step;
        const QueryBlock block = {i % cache_.kv_heads(), first, std::min(step, tokens - first)};
        clear(block, total);
        part.resize(total.size());
        for (int64_t b = first_key_block(block); b < last_key_block(block); ++b) {
          gather(block, b, part.data());
          add(block, part.data(), total.data());
        }
        finish(block, total.data());
      }
    });
  }

 private:
  /// Few tokens: the threads share the keys too, and each block's part is kept until all are there.
  void run_by_keys(const QueryBlock& tokens) const {
    static thread_local std::vector<float> parts, total;
    const int64_t first = first_key_block(tokens), blocks = last_key_block(tokens) - first;
    const int64_t size = rows(tokens) * stride_;
    parts.resize(static_cast<size_t>(cache_.kv_heads() * blocks * size));
    float* const all = parts.data();  // parts is another one in another thread
    const auto block_of = [&](int64_t head) {
      QueryBlock block = tokens;
      block.kv_head = head;
      return block;
    };
    parallel_for(cache_.kv_heads() * blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) gather(block_of(i / blocks), first + i % blocks, all + i * size);
    });
    for (int64_t h = 0; h < cache_.kv_heads(); ++h) {
      clear(block_of(h), total);
      for (int64_t b = 0; b < blocks; ++b) add(block_of(h), all + (h * blocks + b) * size, total.data());
      finish(block_of(h), total.data());
    }
  }

  int64_t rows(const QueryBlock& block) const { return block.tokens * group_; }
  int64_t position(const QueryBlock& block, int64_t token) const { return cache_.length() + block.first_token + token; }
  int64_t window_begin(int64_t position) const {
    return options_.window ? std::max<int64_t>(0, position - options_.window + 1) : 0;
  }
  int64_t first_key_block(const QueryBlock& block) const { return window_begin(position(block, 0)) / kKeyBlock; }
  int64_t last_key_block(const QueryBlock& block) const { return ceil_div(position(block, block.tokens), kKeyBlock); }

  /// What the rows of a block gather from one block of keys: part: [rows, stride].
  void gather(const QueryBlock& block, int64_t key_block, float* part) const {
    static thread_local std::vector<float> scores;
    const int64_t begin = key_block * kKeyBlock;
    const int64_t end = std::min(begin + kKeyBlock, position(block, block.tokens)), span = end - begin;
    scores.resize(static_cast<size_t>(rows(block) * span));
    score(block, begin, span, scores.data());
    const KvCache::Rows values = cache_.values(layer_, block.kv_head, begin);
    for (int64_t r = 0; r < rows(block); ++r) {
      float* row = scores.data() + r * span;
      const auto [max, sum] = weigh(row, position(block, r / group_), begin, span);
      part[r * stride_ + kMax] = max;
      part[r * stride_ + kSum] = sum;
      if (values.scales == nullptr) continue;
      for (int64_t j = 0; j < span; ++j) row[j] *= values.scales[j];
    }
    sum_of_rows_(values, {.x = scores.data(),
                          .w = nullptr,
                          .y = part + kValues,
                          .tokens = rows(block),
                          .k = span,
                          .cols = head_dim_,
                          .ldx = span,
                          .ldw = head_dim_,
                          .ldy = stride_});
  }

  /// scores: [rows, span], of the keys from `begin` on.
  void score(const QueryBlock& block, int64_t begin, int64_t span, float* scores) const {
    static thread_local std::vector<float> queries;
    queries.resize(static_cast<size_t>(rows(block) * head_dim_));
    const int64_t together = group_ * head_dim_;  // heads of a group lie side by side
    for (int64_t t = 0; t < block.tokens; ++t) {
      const float* from = q_.f32() + (block.first_token + t) * q_.cols() + block.kv_head * together;
      for (int64_t i = 0; i < together; ++i) {
        queries[static_cast<size_t>(t * together + i)] = from[i] * options_.scale;
      }
    }
    for (int64_t j = 0; j < span; j += KvCache::kKeyColumns) {
      const KvCache::Rows keys = cache_.keys(layer_, block.kv_head, begin + j);
      const int64_t columns = std::min(KvCache::kKeyColumns, span - j);
      sum_of_rows_(keys, {.x = queries.data(),
                          .w = nullptr,
                          .y = scores + j,
                          .tokens = rows(block),
                          .k = head_dim_,
                          .cols = columns,
                          .ldx = head_dim_,
                          .ldw = KvCache::kKeyColumns,
                          .ldy = span});
      if (keys.scales == nullptr) continue;
      for (int64_t r = 0; r < rows(block); ++r) {
        for (int64_t c = 0; c < columns; ++c) scores[r * span + j + c] *= keys.scales[c];
      }
    }
  }

  /// A row's scores become e^(score - max); of keys that its token does not see, 0.
  SoftmaxPart weigh(float* row, int64_t position, int64_t begin, int64_t span) const {
    const int64_t from = std::clamp<int64_t>(window_begin(position) - begin, 0, span);
    const int64_t to = std::clamp<int64_t>(position + 1 - begin, from, span);
    std::fill(row, row + from, -kInfinity);
    std::fill(row + to, row + span, -kInfinity);
    soft_cap(row + from, to - from, options_.softcap);
    return kernels().softmax_part(row, span);
  }

  void clear(const QueryBlock& block, std::vector<float>& total) const {
    total.assign(static_cast<size_t>(rows(block) * stride_), 0.0f);
    for (int64_t r = 0; r < rows(block); ++r) total[static_cast<size_t>(r * stride_ + kMax)] = -kInfinity;
  }

  void add(const QueryBlock& block, const float* part, float* total) const {
    for (int64_t r = 0; r < rows(block); ++r) add_part(part + r * stride_, head_dim_, total + r * stride_);
  }

  void finish(const QueryBlock& block, const float* total) const {
    for (int64_t r = 0; r < rows(block); ++r) {
      const float* row = total + r * stride_;
      const float inverse = row[kSum] == 0 ? 0.0f : 1.0f / row[kSum];
      const int64_t token = block.first_token + r / group_, head = block.kv_head * group_ + r % group_;
      float* out = out_.f32() + token * q_.cols() + head * head_dim_;
      for (int64_t d = 0; d < head_dim_; ++d) out[d] = row[kValues + d] * inverse;
    }
  }

  const Tensor& q_;
  const KvCache& cache_;
  int64_t layer_;
  const AttentionOptions& options_;
  Tensor& out_;
  const SumOfRows sum_of_rows_ = sum_of_rows(cache_.dtype());
  const int64_t group_ = options_.heads / cache_.kv_heads();  // query heads of a key head
  const int64_t head_dim_ = cache_.head_dim(), stride_ = kValues + head_dim_;
};

/// One head of one sequence.
struct SequenceHead {
  int64_t head, first, length;  // first: its first token
};

void attend_sequence(const Tensor& q, const Tensor& k, const Tensor& v, const SequenceHead& part,
                     const AttentionOptions& options, Tensor& out) {
  static thread_local std::vector<float> scores, turned_keys;
  const auto [head, first, length] = part;
  const int64_t width = q.cols(), head_dim = width / options.heads, at = first * width + head * head_dim;
  scores.resize(static_cast<size_t>(length * length));
  turned_keys.resize(static_cast<size_t>(head_dim * length));
  kernels().transpose(
      {.x = k.f32() + at, .y = turned_keys.data(), .rows = length, .cols = head_dim, .ldx = width, .ldy = length});
  kernels().sum_rows_f32({.x = q.f32() + at,
                          .w = turned_keys.data(),
                          .y = scores.data(),
                          .tokens = length,
                          .k = head_dim,
                          .cols = length,
                          .ldx = width,
                          .ldw = length,
                          .ldy = length});
  for (int64_t t = 0; t < length; ++t) {
    cap_scores(scores.data() + t * length, length, options);
    kernels().softmax(scores.data() + t * length, length);
  }
  kernels().sum_rows_f32({.x = scores.data(),
                          .w = v.f32() + at,
                          .y = out.f32() + at,
                          .tokens = length,
                          .k = length,
                          .cols = head_dim,
                          .ldx = length,
                          .ldw = width,
                          .ldy = width});
}

}  // namespace

Tensor attention(const Tensor& q, const KvCache& cache, int64_t layer, const AttentionOptions& options) {
  const ProfileScope scope("attention");
  Tensor out = Tensor::uninitialized(DType::f32, q.shape);
  CachedAttention(q, cache, layer, options, out).run();
  return out;
}

uint64_t attention_bytes(const AttentionHeads& h, int64_t tokens, int64_t span) {
  const int64_t group = h.heads / h.kv_heads, step = std::max<int64_t>(1, kQueryRows / group);
  const int64_t rows = std::min(tokens, step) * group, stride = kValues + h.head_dim;
  const int64_t of_thread = rows * (std::min(span, kKeyBlock) + h.head_dim + 2 * stride);
  const int64_t parts = tokens <= step ? tokens * h.heads * stride * ceil_div(span, kKeyBlock) : 0;
  return static_cast<uint64_t>(thread_count() * of_thread + parts) * sizeof(float);
}

Tensor causal_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> lengths,
                        const AttentionOptions& options, Tape* tape) {
  const ProfileScope scope("attention");
  Tensor out = Tensor::uninitialized(DType::f32, q.shape);
  const int64_t head_dim = q.cols() / options.heads;
  int64_t first = 0;
  for (const int64_t length : lengths) {
    const int64_t end = first + length;
    KvCache cache(1, k.cols() / head_dim, head_dim, length);
    cache.write(0, k.slice_rows(first, end), v.slice_rows(first, end));
    Tensor rows = out.slice_rows(first, end);
    const Tensor queries = q.slice_rows(first, end);
    CachedAttention(queries, cache, 0, options, rows).run();
    first = end;
  }
  record_attention({.q = q, .k = k, .v = v, .lengths = {lengths.begin(), lengths.end()}, .options = options}, out,
                   tape);
  return out;
}

Tensor bidirectional_attention(const Tensor& q, const Tensor& k, const Tensor& v, std::span<const int64_t> lengths,
                               const AttentionOptions& options, Tape* tape) {
  const ProfileScope scope("attention");
  Tensor out = Tensor::uninitialized(DType::f32, q.shape);
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
