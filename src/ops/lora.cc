#include "ops/lora.h"

#include <algorithm>
#include <cmath>

#include "core/checked.h"
#include "core/counter_random.h"
#include "core/parallel.h"
#include "kernels/kernels.h"
#include "ops/elementwise.h"
#include "ops/matrix.h"

namespace nibble {
namespace {

constexpr int64_t kElementGrain = 16 * 1024;
constexpr int64_t kPerDraw = 4;  // elements by 16 of the 64 random bits each

/// The columns of A that belong to the ids, as rows: [ids.size(), rank].
Tensor columns_of(std::span<const int32_t> ids, const Tensor& a) {
  const int64_t rank = a.rows(), cols = a.cols();
  Tensor out(DType::f32, {static_cast<int64_t>(ids.size()), rank});
  for (size_t t = 0; t < ids.size(); ++t) {
    for (int64_t j = 0; j < rank; ++j) out.f32()[static_cast<int64_t>(t) * rank + j] = a.f32()[j * cols + ids[t]];
  }
  return out;
}

/// x w^T, as fast as it can be for many tokens.
Tensor product_of_many(const Tensor& x, const Tensor& w) {
  Tensor y = Tensor::uninitialized(DType::f32, {x.rows(), w.rows()});
  multiply_decoded(w, {.x = x.f32(), .y = y.f32(), .tokens = x.rows()});
  return y;
}

/// Training has many tokens, and turning B is nothing beside their product.
Tensor scaled_turned_b(const Lora& lora) {
  Tensor turned = transpose(lora.b);
  scale_in_place(turned, lora.scaling);
  return turned;
}

}  // namespace

bool drops(const Lora& lora, const Tape* tape) { return lora.dropout > 0 && tape && tape->dropout_seed; }

Tensor lora_input(const Tensor& x, const Lora& lora, const Tape* tape) {
  return drops(lora, tape) ? dropout(x, lora.dropout, *tape->dropout_seed, lora.stream) : x;
}

Tensor dropout(const Tensor& x, float share, uint64_t seed, uint64_t stream) {
  Tensor y = Tensor::uninitialized(DType::f32, x.shape);
  const CounterRandom random(seed, stream);
  const float kept = 1.0f / (1.0f - share);
  const auto dropped_below = static_cast<uint64_t>(std::lround(share * 0x1p16f));
  parallel_for(ceil_div(x.count(), kPerDraw), kElementGrain / kPerDraw, [&](int64_t begin, int64_t end) {
    for (int64_t draw = begin; draw < end; ++draw) {
      uint64_t bits = random.bits(static_cast<uint64_t>(draw));
      const int64_t stop = std::min(x.count(), (draw + 1) * kPerDraw);
      for (int64_t i = draw * kPerDraw; i < stop; ++i, bits >>= 16) {
        y.f32()[i] = (bits & 0xffff) < dropped_below ? 0.0f : x.f32()[i] * kept;
      }
    }
  });
  return y;
}

Tensor lora_down(const Tensor& seen, const Lora& lora, const Tape* tape) {
  return may_overwrite(tape) ? matmul(seen, lora.a) : product_of_many(seen, lora.a);
}

Tensor lora_up(const Tensor& u, const Lora& lora, const Tape* tape) {
  if (!may_overwrite(tape)) return matmul_by_columns(u, scaled_turned_b(lora));
  Tensor scaled = copy_of(u);
  scale_in_place(scaled, lora.scaling);
  return matmul(scaled, lora.b);
}

Tensor add_lora(const Tensor& x, const Lora& lora, const Tape* tape, Tensor& y) {
  Tensor u = lora_down(lora_input(x, lora, tape), lora, tape);
  if (may_overwrite(tape)) {
    add_in_place(y, lora_up(u, lora, tape));
  } else {
    add_matmul_by_columns(u, scaled_turned_b(lora), y);
  }
  if (lora.bias.empty()) return u;
  for (int64_t t = 0; t < y.rows(); ++t) {
    kernels().axpy(1.0f, lora.bias.f32(), y.f32() + t * y.cols(), y.cols());
  }
  return u;
}

// With u = drop(x) A^T and g = dy B:  dB = s dy^T u, dA = s g^T drop(x), dx = s drop'(g A).
void lora_backward(const Tensor& x, const Tensor& low_rank, const Lora& lora, const LoraSlots& slots, const Tensor& dy,
                   Tape& tape) {
  const Tensor seen = lora_input(x, lora, &tape);
  if (slots.b != Tape::kNone) {
    Tensor db = transpose(turned_matmul(low_rank.empty() ? matmul(seen, lora.a) : low_rank, dy));
    scale_in_place(db, lora.scaling);
    tape.add(slots.b, std::move(db));
  }
  if (slots.a == Tape::kNone && slots.x == Tape::kNone) return;
  Tensor g = matmul_by_columns(dy, lora.b);
  scale_in_place(g, lora.scaling);
  if (slots.a != Tape::kNone) tape.add(slots.a, turned_matmul(g, seen));
  if (slots.x == Tape::kNone) return;
  if (!drops(lora, &tape)) return add_matmul_by_columns(g, lora.a, tape.sum(slots.x, x.shape));
  tape.add(slots.x, lora_input(matmul_by_columns(g, lora.a), lora, &tape));
}

void add_embedding_lora(std::span<const int32_t> ids, const Lora& lora, Tensor& y) {
  const Tensor delta = matmul(columns_of(ids, lora.a), lora.b);
  kernels().axpy(lora.scaling, delta.f32(), y.f32(), y.count());
}

// With u = A[:, ids]^T and g = dy B:  dB = s dy^T u, and dA[:, id] the sum of s g over where the id stands.
void embedding_lora_backward(std::span<const int32_t> ids, const Lora& lora, const LoraSlots& slots, const Tensor& dy,
                             Tape& tape) {
  if (slots.b != Tape::kNone) {
    Tensor db = matmul(transpose(dy), transpose(columns_of(ids, lora.a)));
    scale_in_place(db, lora.scaling);
    tape.add(slots.b, std::move(db));
  }
  if (slots.a == Tape::kNone) return;
  Tensor g = matmul(dy, transpose(lora.b));
  scale_in_place(g, lora.scaling);
  Tensor& da = tape.sum(slots.a, lora.a.shape);
  const int64_t rank = lora.a.rows(), cols = lora.a.cols();
  for (size_t t = 0; t < ids.size(); ++t) {
    for (int64_t j = 0; j < rank; ++j) da.f32()[j * cols + ids[t]] += g.f32()[static_cast<int64_t>(t) * rank + j];
  }
}

}  // namespace nibble
