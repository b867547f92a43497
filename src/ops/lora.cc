#include "ops/lora.h"

#include "core/parallel.h"
#include "kernels/kernels.h"
#include "ops/counter_random.h"
#include "ops/elementwise.h"
#include "ops/matrix.h"

namespace nibble {
namespace {

constexpr int64_t kElementGrain = 16 * 1024;

bool drops(const Lora& lora, const Tape* tape) { return lora.dropout > 0 && tape && tape->dropout_seed; }

}  // namespace

Tensor lora_input(const Tensor& x, const Lora& lora, const Tape* tape) {
  return drops(lora, tape) ? dropout(x, lora.dropout, *tape->dropout_seed, lora.stream) : x;
}

Tensor dropout(const Tensor& x, float share, uint64_t seed, uint64_t stream) {
  Tensor y(DType::f32, x.shape);
  const CounterRandom random(seed, stream);
  const float kept = 1.0f / (1.0f - share);
  parallel_for(x.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const bool dropped = random.unit(static_cast<uint64_t>(i)) < share;
      y.f32()[i] = dropped ? 0.0f : x.f32()[i] * kept;
    }
  });
  return y;
}

void add_lora(const Tensor& x, const Lora& lora, const Tape* tape, Tensor& y) {
  const Tensor delta = matmul(matmul(lora_input(x, lora, tape), lora.a), lora.b);
  parallel_for(y.count(), kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().axpy(lora.scaling, delta.f32() + begin, y.f32() + begin, end - begin);
  });
}

// With u = drop(x) A^T and g = dy B:  dB = s dy^T u, dA = s g^T drop(x), dx = s drop'(g A).
void lora_backward(const Tensor& x, const Lora& lora, const LoraSlots& slots, const Tensor& dy, Tape& tape) {
  const Tensor seen = lora_input(x, lora, &tape);
  if (slots.b != Tape::kNone) {
    Tensor db = matmul(transpose(dy), transpose(matmul(seen, lora.a)));
    scale_in_place(db, lora.scaling);
    tape.add(slots.b, std::move(db));
  }
  if (slots.a == Tape::kNone && slots.x == Tape::kNone) return;
  Tensor g = matmul(dy, transpose(lora.b));
  scale_in_place(g, lora.scaling);
  if (slots.a != Tape::kNone) tape.add(slots.a, matmul(transpose(g), transpose(seen)));
  if (slots.x == Tape::kNone) return;
  const Tensor dx = matmul(g, transpose(lora.a));
  tape.add(slots.x, lora_input(dx, lora, &tape));
}

}  // namespace nibble
