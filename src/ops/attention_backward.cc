// For one query block Q [n, d] over the keys K and values V [span, d] that its tokens see:
//
//   P = softmax(cap(scale Q K^T)), O = P V
//   dV = P^T dO
//   dS = cap'(S) * P * (dP - rowsum(P * dP)) * scale, with dP = dO V^T
//   dQ = dS K,  dK = dS^T Q
//
// A piece of work is one query head of one sequence. Heads that share a key head have their dK and dV added up in their
// order afterwards.
#include "ops/attention_backward.h"

#include <algorithm>
#include <cmath>

#include "core/checked.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

constexpr int64_t kBlock = 64;  // queries, and keys of a panel, which stays in the first-level cache

/// A matrix within a larger one: element (r, c) at data[r * stride + c * step].
struct View {
  const float* data;
  int64_t stride, step = 1;

  View turned() const { return {data, step, stride}; }
};

struct Gradients {
  Tensor q, k, v;
};

/// One sequence.
struct Part {
  int64_t first, length;  // first: its first token
  int64_t panel;          // the first of its keys
};

using Room = std::vector<float>;

struct Size {
  int64_t rows, cols, k;
};

struct Target {
  float* data;
  int64_t stride;
};

/// y = x w, or with `add` y += x w. x: [rows, k], w: [k, cols], as it lies
void multiply(View x, View w, Size size, Target y, bool add = false) {
  kernels().sum_rows_f32({.x = x.data,
                          .w = w.data,
                          .y = y.data,
                          .tokens = size.rows,
                          .k = size.k,
                          .cols = size.cols,
                          .ldx = x.stride,
                          .ldw = w.stride,
                          .ldy = y.stride,
                          .add = add,
                          .x_step = x.step});
}

/// What one piece of work uses again and again.
struct Rooms {
  Room capped, weights, dscores;
};

/// weights, which holds one token's scores, becomes the softmax of the capped ones; dscores, which holds its dP, its
/// dS. capped: room for the capped scores.
void softmax_gradient(const AttentionOptions& options, int64_t count, float* capped, float* weights, float* dscores) {
  cap_scores(weights, count, options);
  if (options.softcap > 0) std::copy_n(weights, count, capped);
  kernels().softmax(weights, count);
  const float mean = kernels().dot(weights, dscores, count);
  for (int64_t j = 0; j < count; ++j) dscores[j] = weights[j] * (dscores[j] - mean) * options.scale;
  if (options.softcap <= 0) return;
  for (int64_t j = 0; j < count; ++j) {
    const float part = capped[j] / options.softcap;
    dscores[j] *= 1.0f - part * part;
  }
}

/// Zero but for [begin, end).
void clear_outside(float* row, int64_t begin, int64_t end, int64_t count) {
  std::fill(row, row + begin, 0.0f);
  std::fill(row + end, row + count, 0.0f);
}

/// How far apart rows of so many floats may lie: an odd number of cache lines, or the values of a column would share a
/// few sets of the cache.
int64_t odd_lines(int64_t floats) { return (ceil_div(floats, int64_t{16}) | 1) * 16; }

/// The gradient of one call, and the shapes of its heads.
class AttentionGradient {
 public:
  /// out.k and out.v: zeros, with a place for every query head.
  AttentionGradient(const AttentionInputs& in, const Tensor& dy, Gradients& out) : in_(in), dy_(dy), out_(out) {
    int64_t first = 0;
    for (const int64_t length : in.lengths) {
      parts_.push_back({first, length, panels_});
      first += length;
      panels_ += ceil_div(length, kBlock);
    }
    turned_keys_ = turned(in.k);
    turned_values_ = turned(in.v);
  }

  void run() {
    const int64_t heads = in_.options.heads;
    parallel_for(static_cast<int64_t>(parts_.size()) * heads, 1, [&](int64_t begin, int64_t end) {
      static thread_local Rooms rooms;
      for (int64_t i = begin; i < end; ++i) {
        const Part& p = parts_[static_cast<size_t>(i / heads)];
        for (int64_t t = 0; t < p.length; t += kBlock) block(p, i % heads, t, std::min(kBlock, p.length - t), rooms);
      }
    });
  }

 private:
  /// The key heads of x, turned: [head][panel][head_dim, kBlock].
  Tensor turned(const Tensor& x) const {
    const int64_t kv_heads = kv_width_ / head_dim_;
    Tensor out = Tensor::scratch(DType::f32, {kv_heads * panels_, panel_size_});
    parallel_for(static_cast<int64_t>(parts_.size()) * kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const Part& p = parts_[static_cast<size_t>(i / kv_heads)];
        const int64_t head = i % kv_heads;
        for (int64_t key = 0; key < p.length; key += kBlock) {
          kernels().transpose({.x = x.f32() + (p.first + key) * kv_width_ + head * head_dim_,
                               .y = out.f32() + (head * panels_ + p.panel + key / kBlock) * panel_size_,
                               .rows = std::min(kBlock, p.length - key),
                               .cols = head_dim_,
                               .ldx = kv_width_,
                               .ldy = kBlock});
        }
      }
    });
    return out;
  }

  /// Tokens [first, first + count) of the sequence, query head h.
  void block(const Part& p, int64_t h, int64_t first, int64_t count, Rooms& rooms) {
    const auto window_begin = [&](int64_t t) {
      return in_.causal && in_.options.window ? std::max<int64_t>(0, t - in_.options.window + 1) : 0;
    };
    const int64_t begin = window_begin(first) / kBlock * kBlock, end = in_.causal ? first + count : p.length;
    const int64_t span = end - begin, stride = odd_lines(span), kv_head = h / shared_;
    const int64_t q_at = (p.first + first) * width_ + h * head_dim_;
    const View q = {in_.q.f32() + q_at, width_}, dy = {dy_.f32() + q_at, width_};
    rooms.capped.resize(static_cast<size_t>(span));
    for (Room* room : {&rooms.weights, &rooms.dscores}) room->resize(static_cast<size_t>(count * stride));
    for (int64_t key = begin; key < end; key += kBlock) {
      const int64_t panel = (kv_head * panels_ + p.panel + key / kBlock) * panel_size_;
      const Size size = {count, std::min(kBlock, end - key), head_dim_};
      multiply(q, {turned_keys_.f32() + panel, kBlock}, size, {rooms.weights.data() + key - begin, stride});
      multiply(dy, {turned_values_.f32() + panel, kBlock}, size, {rooms.dscores.data() + key - begin, stride});
    }
    for (int64_t t = 0; t < count; ++t) {
      const int64_t from = window_begin(first + t) - begin, to = in_.causal ? first + t + 1 - begin : span;
      float *weights = rooms.weights.data() + t * stride, *dscores = rooms.dscores.data() + t * stride;
      clear_outside(weights, from, to, span);
      clear_outside(dscores, from, to, span);
      softmax_gradient(in_.options, to - from, rooms.capped.data(), weights + from, dscores + from);
    }
    for (int64_t key = begin; key < end; key += kBlock) {
      const int64_t keys = std::min(kBlock, end - key), gradient_at = (p.first + key) * width_ + h * head_dim_;
      const View weights = {rooms.weights.data() + key - begin, stride};
      const View dscores = {rooms.dscores.data() + key - begin, stride};
      const View k = {in_.k.f32() + (p.first + key) * kv_width_ + kv_head * head_dim_, kv_width_};
      multiply(dscores, k, {count, head_dim_, keys}, {out_.q.f32() + q_at, width_}, key > begin);
      multiply(dscores.turned(), q, {keys, head_dim_, count}, {out_.k.f32() + gradient_at, width_}, true);
      multiply(weights.turned(), dy, {keys, head_dim_, count}, {out_.v.f32() + gradient_at, width_}, true);
    }
  }

  const AttentionInputs& in_;
  const Tensor& dy_;
  Gradients& out_;
  const int64_t width_ = in_.q.cols(), head_dim_ = width_ / in_.options.heads, kv_width_ = in_.k.cols();
  const int64_t shared_ = width_ / kv_width_, panel_size_ = head_dim_ * kBlock;
  std::vector<Part> parts_;
  int64_t panels_ = 0;  // of all parts
  Tensor turned_keys_, turned_values_;
};

/// [tokens, kv_width], each head of which is the sum of the query heads that share it.
Tensor sum_shared(Tensor by_query, int64_t head_dim, int64_t kv_width) {
  const int64_t width = by_query.cols(), shared = width / kv_width;
  if (shared == 1) return by_query;
  Tensor sums(DType::f32, {by_query.rows(), kv_width});
  parallel_for(by_query.rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t at = 0; at < width; at += head_dim) {
        float* sum = sums.f32() + t * kv_width + at / head_dim / shared * head_dim;
        kernels().axpy(1.0f, by_query.f32() + t * width + at, sum, head_dim);
      }
    }
  });
  return sums;
}

}  // namespace

void soft_cap(float* scores, int64_t count, float softcap) {
  if (softcap <= 0) return;
  for (int64_t j = 0; j < count; ++j) scores[j] = softcap * std::tanh(scores[j] / softcap);
}

void cap_scores(float* scores, int64_t count, const AttentionOptions& options) {
  for (int64_t j = 0; j < count; ++j) scores[j] *= options.scale;
  soft_cap(scores, count, options.softcap);
}

void record_attention(const AttentionInputs& inputs, const Tensor& out, Tape* tape) {
  if (!is_traced(tape, inputs.q, inputs.k, inputs.v)) return;
  const Tape::Slot to_q = tape->slot(inputs.q), to_k = tape->slot(inputs.k), to_v = tape->slot(inputs.v);
  tape->record(out, [=](Tape& t, const Tensor& dy) {
    const Shape& shape = inputs.q.shape;
    Gradients gradients = {Tensor::uninitialized(DType::f32, shape), Tensor(DType::f32, shape),
                           Tensor(DType::f32, shape)};
    AttentionGradient(inputs, dy, gradients).run();
    const int64_t head_dim = inputs.q.cols() / inputs.options.heads;
    t.add(to_q, std::move(gradients.q));
    t.add(to_k, sum_shared(std::move(gradients.k), head_dim, inputs.k.cols()));
    t.add(to_v, sum_shared(std::move(gradients.v), head_dim, inputs.v.cols()));
  });
}

}  // namespace nibble
