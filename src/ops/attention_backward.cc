// For one query block Q [n, d] over the keys K and values V [span, d] that its tokens see:
//
//   P = softmax(cap(scale Q K^T)), O = P V
//   dV = P^T dO
//   dS = cap'(S) * P * (dP - rowsum(P * dP)) * scale, with dP = dO V^T
//   dQ = dS K,  dK = dS^T Q
//
// A piece of work is one key head of one sequence with all query heads that share it, so that dK and dV are summed in
// an order of their own.
#include "ops/attention_backward.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "kernels/kernels.h"

namespace nibble {
namespace {

constexpr int64_t kTokenBlock = 64;

/// A matrix within a larger one: element (r, c) at data[r * stride + c * step].
struct View {
  const float* data;
  int64_t stride, step = 1;

  View from(int64_t column) const { return {data + column * step, stride, step}; }
  View turned() const { return {data, step, stride}; }
};

struct Gradients {
  Tensor q, k, v;
};

/// One key head of one sequence.
struct Part {
  int64_t kv_head, first, length;  // first: its first token
};

using Room = std::vector<float>;

/// room = from^T. from: [rows, cols]
View turn(View from, int64_t rows, int64_t cols, Room& room) {
  room.resize(static_cast<size_t>(rows * cols));
  kernels().transpose({.x = from.data, .y = room.data(), .rows = rows, .cols = cols, .ldx = from.stride, .ldy = rows});
  return {room.data(), rows};
}

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
  Room scores, weights, dscores, turned_keys, turned_values;
};

/// weights = softmax of the capped scores of one token, then dscores from them and from dP, which it holds.
void softmax_gradient(const AttentionOptions& options, int64_t count, float* scores, float* weights, float* dscores) {
  cap_scores(scores, count, options);
  std::copy_n(scores, count, weights);
  kernels().softmax(weights, count);
  const float mean = kernels().dot(weights, dscores, count);
  for (int64_t j = 0; j < count; ++j) dscores[j] = weights[j] * (dscores[j] - mean) * options.scale;
  if (options.softcap <= 0) return;
  for (int64_t j = 0; j < count; ++j) {
    const float capped = scores[j] / options.softcap;
    dscores[j] *= 1.0f - capped * capped;
  }
}

/// Zero but for [begin, end).
void clear_outside(float* row, int64_t begin, int64_t end, int64_t count) {
  std::fill(row, row + begin, 0.0f);
  std::fill(row + end, row + count, 0.0f);
}

/// The gradient of one call, and the shapes of its heads.
class AttentionGradient {
 public:
  AttentionGradient(const AttentionInputs& in, const Tensor& dy, Gradients& out) : in_(in), dy_(dy), out_(out) {}

  void run() {
    const int64_t kv_heads = in_.k.cols() / head_dim_, sequences = static_cast<int64_t>(in_.lengths.size());
    std::vector<int64_t> starts = {0};
    for (const int64_t length : in_.lengths) starts.push_back(starts.back() + length);
    parallel_for(sequences * kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto s = static_cast<size_t>(i / kv_heads);
        part({.kv_head = i % kv_heads, .first = starts[s], .length = in_.lengths[s]});
      }
    });
  }

 private:
  /// Of one key head: [head_dim, length].
  struct Turned {
    View keys, values;
  };

  void part(const Part& p) {
    static thread_local Rooms rooms;
    const int64_t shared = in_.options.heads * head_dim_ / in_.k.cols();
    const int64_t at = p.first * kv_width_ + p.kv_head * head_dim_;
    const Turned turned = {turn({in_.k.f32() + at, kv_width_}, p.length, head_dim_, rooms.turned_keys),
                           turn({in_.v.f32() + at, kv_width_}, p.length, head_dim_, rooms.turned_values)};
    for (int64_t h = p.kv_head * shared; h < (p.kv_head + 1) * shared; ++h) {
      for (int64_t t = 0; t < p.length; t += kTokenBlock) {
        block(p, h, t, std::min(kTokenBlock, p.length - t), turned, rooms);
      }
    }
  }

  /// Tokens [first, first + count) of the sequence, query head h.
  void block(const Part& p, int64_t h, int64_t first, int64_t count, const Turned& turned, Rooms& rooms) {
    const auto window_begin = [&](int64_t t) {
      return in_.causal && in_.options.window ? std::max<int64_t>(0, t - in_.options.window + 1) : 0;
    };
    const int64_t begin = window_begin(first), end = in_.causal ? first + count : p.length, span = end - begin;
    const int64_t q_at = (p.first + first) * width_ + h * head_dim_;
    const int64_t kv_at = (p.first + begin) * kv_width_ + p.kv_head * head_dim_;
    const View q = {in_.q.f32() + q_at, width_}, dy = {dy_.f32() + q_at, width_};
    for (Room* room : {&rooms.scores, &rooms.weights, &rooms.dscores}) room->resize(static_cast<size_t>(count * span));
    multiply(q, turned.keys.from(begin), {count, span, head_dim_}, {rooms.scores.data(), span});
    multiply(dy, turned.values.from(begin), {count, span, head_dim_}, {rooms.dscores.data(), span});
    for (int64_t t = 0; t < count; ++t) {
      const int64_t from = window_begin(first + t) - begin, to = in_.causal ? first + t + 1 - begin : span;
      float *scores = rooms.scores.data() + t * span, *weights = rooms.weights.data() + t * span;
      float* dscores = rooms.dscores.data() + t * span;
      clear_outside(weights, from, to, span);
      clear_outside(dscores, from, to, span);
      softmax_gradient(in_.options, to - from, scores + from, weights + from, dscores + from);
    }
    const View weights = {rooms.weights.data(), span}, dscores = {rooms.dscores.data(), span};
    multiply(dscores, {in_.k.f32() + kv_at, kv_width_}, {count, head_dim_, span}, {out_.q.f32() + q_at, width_});
    multiply(dscores.turned(), q, {span, head_dim_, count}, {out_.k.f32() + kv_at, kv_width_}, true);
    multiply(weights.turned(), dy, {span, head_dim_, count}, {out_.v.f32() + kv_at, kv_width_}, true);
  }

  const AttentionInputs& in_;
  const Tensor& dy_;
  Gradients& out_;
  const int64_t width_ = in_.q.cols(), head_dim_ = width_ / in_.options.heads, kv_width_ = in_.k.cols();
};

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
    Gradients gradients = {Tensor::uninitialized(DType::f32, inputs.q.shape), Tensor(DType::f32, inputs.k.shape),
                           Tensor(DType::f32, inputs.v.shape)};
    AttentionGradient(inputs, dy, gradients).run();
    t.add(to_q, std::move(gradients.q));
    t.add(to_k, std::move(gradients.k));
    t.add(to_v, std::move(gradients.v));
  });
}

}  // namespace nibble
