#include "ops/fake_quant.h"

#include "core/error.h"
#include "ops/linear_observer.h"
#include "ops/lora.h"
#include "ops/matrix.h"
#include "ops/merged_weight.h"
#include "quant/dither.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

/// Where the gradients of a layer go.
struct Slots {
  Tape::Slot x, weight, bias;
  std::vector<LoraSlots> adapters;
  bool any = false;
};

Slots slots_of(const Tensor& x, const Linear& layer, const Tape& tape) {
  const auto* dense = std::get_if<Tensor>(&layer.weight);
  Slots slots = {.x = tape.slot(x),
                 .weight = dense ? tape.slot(*dense) : Tape::kNone,
                 .bias = layer.bias ? tape.slot(*layer.bias) : Tape::kNone,
                 .adapters = {}};
  slots.any = slots.x != Tape::kNone || slots.weight != Tape::kNone || slots.bias != Tape::kNone;
  for (const auto& lora : layer.adapters) {
    // The gradient of x goes through the merged matrix, not through A and B.
    slots.adapters.push_back({.x = Tape::kNone, .a = tape.slot(lora->a), .b = tape.slot(lora->b)});
    slots.any |= slots.adapters.back().a != Tape::kNone || slots.adapters.back().b != Tape::kNone;
  }
  return slots;
}

int levels_of(const ComputeOptions& options) { return options.reduce_range ? 127 : 255; }

void record(const Tensor& x, const Linear& layer, const ComputeOptions& options, const Weight& deployed,
            const Tensor& y, Tape& tape) {
  const Slots slots = slots_of(x, layer, tape);
  if (!slots.any) return;
  std::optional<AffineGrid> grid;
  if (const auto& input = layer.fake_quant->input; input && !input->extents().empty()) {
    grid = unsigned_grid(input->extents(), x.count(), levels_of(options));
  }
  std::vector<Lora> adapters;
  for (const auto& lora : layer.adapters) adapters.push_back({.a = lora->a, .b = lora->b, .scaling = lora->scaling});
  const bool needs_x = slots.weight != Tape::kNone || !adapters.empty() || grid;
  tape.record(y, [=, kept = needs_x ? tape.kept(x) : Tape::Kept()](Tape& t, const Tensor& dy) {
    const Tensor seen = t.value(kept);
    if (slots.bias != Tape::kNone) t.add(slots.bias, column_sums(dy));
    if (slots.weight != Tape::kNone) t.add(slots.weight, turned_matmul(dy, seen));
    for (size_t i = 0; i < adapters.size(); ++i) lora_backward(seen, {}, adapters[i], slots.adapters[i], dy, t);
    if (slots.x == Tape::kNone) return;
    const Tensor dx = matmul_by_columns(dy, deployed);
    t.add(slots.x, grid ? pass_straight(seen, *grid, dx) : dx);
  });
}

void observe(const Tensor& x, FakeQuant& fake, const Tape& tape) {
  if (!fake.input || !fake.observes) return;
  if (tape.recompute_layers) {
    fail(ErrorCode::unsupported,
         "observed activation ranges: layers cannot be run a second time for the backward pass; "
         "train without recomputation, or with ranges of each call");
  }
  fake.input->observe(x, x.count());
}

}  // namespace

QuantizedTensor deployed_weight(const Linear& layer, const ComputeOptions& options) {
  const FakeQuant& fake = *layer.fake_quant;
  const bool dithers = fake.dither && !layer.adapters.empty() && can_dither(layer.weight, *fake.format, fake.encode);
  Tensor merged = dithers ? dithered(std::get<QuantizedTensor>(layer.weight)) : decode(layer.weight);
  for (const auto& lora : layer.adapters) {
    if (!lora->magnitude.empty()) {
      fail(ErrorCode::unsupported, layer.name + ": DoRA adapters cannot be trained with quantization");
    }
    merged = merged_weight(merged, *lora);
  }
  auto deployed = std::get<QuantizedTensor>(encode(merged, *fake.format, fake.encode));
  if (fake.input && !fake.input->extents().empty()) {
    const AffineRange range = choose_range(fake.input->extents()[0], levels_of(options));
    deployed.parts["input_scale"] = Tensor::from(std::span(&range.scale, 1));
    deployed.parts["input_zero_point"] = Tensor(DType::i32, {1});
    deployed.parts["input_zero_point"].data<int32_t>()[0] = range.zero_point;
  }
  return deployed;
}

Tensor fake_quant_linear(const Tensor& x, const Linear& layer, const ComputeOptions& options, Tape* tape) {
  const bool records = !may_overwrite(tape);
  if (records) observe(x, *layer.fake_quant, *tape);
  QuantizedTensor deployed = deployed_weight(layer, options);
  if (deployed.format->pack) deployed.format->pack(deployed, options, Residency::memory);
  Tensor y(DType::f32, {x.rows(), deployed.rows()});
  const Weight weight = std::move(deployed);
  matmul(weight,
         {.x = x.f32(),
          .y = y.f32(),
          .tokens = x.rows(),
          .bias = layer.bias ? layer.bias->f32() : nullptr,
          .name = layer.name},
         options);
  if (records) record(x, layer, options, weight, y, *tape);
  LinearObserver::notify({.layer = layer, .x = x, .options = options, .y = y});
  return y;
}

}  // namespace nibble
