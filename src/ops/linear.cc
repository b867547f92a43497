#include "ops/linear.h"

#include <algorithm>

#include "core/error.h"
#include "core/parallel.h"
#include "core/profile.h"
#include "kernels/kernels.h"
#include "ops/dora.h"
#include "ops/elementwise.h"
#include "ops/fake_quant.h"
#include "ops/linear_observer.h"
#include "ops/lora.h"
#include "ops/matrix.h"
#include "quant/matmul.h"

namespace nibble {
namespace {

constexpr int64_t kColumnGrain = 16;
constexpr std::string_view kHead = "lm_head";

/// A trained or frozen weight as a watched tensor; a quantized one cannot be watched.
Tape::Slot slot_of(const Tape& tape, const Weight& w) {
  const auto* dense = std::get_if<Tensor>(&w);
  return dense ? tape.slot(*dense) : Tape::kNone;
}

bool is_traced(const Tensor& x, const Linear& layer, const Tape* tape) {
  if (may_overwrite(tape)) return false;
  if (tape->slot(x) != Tape::kNone || slot_of(*tape, layer.weight) != Tape::kNone) return true;
  if (layer.bias && tape->slot(*layer.bias) != Tape::kNone) return true;
  for (const auto& lora : layer.adapters) {
    if (nibble::is_traced(tape, lora->a, lora->b, lora->magnitude)) return true;
  }
  return false;
}

/// The steps of whole numbers would swallow those of a weight that learns.
bool goes_in_pairs(const Weight& w, const Tape& tape) { return tape.in_pairs && slot_of(tape, w) == Tape::kNone; }

/// An adapter in one forward pass.
struct AdapterPass {
  std::shared_ptr<Lora> lora;
  Tensor low_rank;  // of plain LoRA: what add_lora() returned
  DoraPass dora;    // of the other
};

std::vector<AdapterPass> add_adapters(const Tensor& x, const Linear& layer, const Tape* tape, Tensor& y) {
  std::vector<AdapterPass> passes;
  for (const auto& lora : layer.adapters) {
    passes.push_back({.lora = lora, .low_rank = {}, .dora = {}});
    if (lora->magnitude.empty()) {
      passes.back().low_rank = add_lora(x, *lora, tape, y);
    } else {
      passes.back().dora = add_dora(x, layer, *lora, tape, passes.size() == 1, y);
    }
  }
  return passes;
}

void adapter_backward(const Tensor& x, const AdapterPass& pass, Tape::Slot to_x, const Tensor& dy, Tape& tape) {
  const Lora& lora = *pass.lora;
  const LoraSlots slots = {
      .x = to_x, .a = tape.slot(lora.a), .b = tape.slot(lora.b), .magnitude = tape.slot(lora.magnitude)};
  if (lora.magnitude.empty()) {
    lora_backward(x, pass.low_rank, lora, slots, dy, tape);
  } else {
    dora_backward(x, lora, pass.dora, slots, dy, tape);
  }
}

void add_input_gradient(Tape::Slot to_x, const Weight& weight, const Tensor& dy, bool in_pairs, Tape& tape) {
  if (!tape.has_gradient(to_x)) return tape.add(to_x, matmul_by_columns(dy, weight, in_pairs));
  add_matmul_by_columns(dy, weight, tape.sum(to_x, {dy.rows(), weight_shape(weight)[1]}), in_pairs);
}

/// The gradient of x W^T, given that of y.
Tensor through_weight(const std::vector<AdapterPass>& adapters, const Tensor& dy) {
  Tensor through = dy;
  for (const AdapterPass& pass : adapters) {
    if (pass.lora->magnitude.empty() || pass.dora.drops) continue;
    if (through.f32() == dy.f32()) through = copy_of(dy);
    add_dora_gradient(pass.dora, dy, through);
  }
  return through;
}

void record(const Tensor& x, const Linear& layer, const std::vector<AdapterPass>& adapters, const Tensor& y,
            Tape& tape) {
  const bool in_pairs = goes_in_pairs(layer.weight, tape);
  const Tape::Slot to_x = tape.slot(x), to_w = slot_of(tape, layer.weight);
  const Tape::Slot to_bias = layer.bias ? tape.slot(*layer.bias) : Tape::kNone;
  // A frozen layer without adapters needs no x.
  const Tape::Kept kept = to_w != Tape::kNone || !adapters.empty() ? tape.kept(x) : Tape::Kept();
  tape.record(y, [=, weight = layer.weight](Tape& t, const Tensor& dy) {
    const Tensor seen = t.value(kept);
    if (to_bias != Tape::kNone) t.add(to_bias, column_sums(dy));
    if (to_w != Tape::kNone) t.add(to_w, turned_matmul(dy, seen));
    if (to_x != Tape::kNone) add_input_gradient(to_x, weight, through_weight(adapters, dy), in_pairs, t);
    for (const AdapterPass& pass : adapters) adapter_backward(seen, pass, to_x, dy, t);
  });
}

/// y of each layer, and the product that fills it.
struct Outputs {
  std::vector<Tensor> y;
  std::vector<WeightProduct> products;
};

Outputs outputs_for(const Tensor& x, std::span<const Linear* const> layers) {
  Outputs out;
  for (const Linear* layer : layers) {
    const Shape shape = weight_shape(layer->weight);
    if (x.cols() != shape[1]) {
      fail(ErrorCode::internal, layer->name + ": input " + shape_text(x.shape) + " does not fit " + shape_text(shape));
    }
    Tensor& y = out.y.emplace_back(Tensor::uninitialized(DType::f32, {x.rows(), shape[0]}));
    out.products.push_back({.w = &layer->weight,
                            .args = {.x = x.f32(),
                                     .y = y.f32(),
                                     .tokens = x.rows(),
                                     .bias = layer->bias ? layer->bias->f32() : nullptr,
                                     .name = layer->name}});
  }
  return out;
}

std::string_view format_of(const Weight& w) {
  const auto* quantized = std::get_if<QuantizedTensor>(&w);
  return quantized ? quantized->format->name : dtype_name(std::get<Tensor>(w).dtype);
}

/// "linear nf4", "head fp16". A head in 8 bits whose activations stay as they are is --head int8.
std::string profile_name(const WeightProduct& product, const ComputeOptions& options) {
  const std::string format(format_of(*product.w));
  if (product.args.name != kHead) return "linear " + format;
  return "head " + (options.float_activations && format == "int8-dynamic" ? "int8" : format);
}

/// Training multiplies the values that weights decode to; integers that are not in pairs are those that the result of
/// QAT will be multiplied with.
void multiply(std::span<const WeightProduct> products, const ComputeOptions& options, const Tape* tape) {
  std::string name;
  uint64_t bytes = 0;
  if (Profile::active() != nullptr) {
    name = profile_name(products[0], options);
    for (const WeightProduct& p : products) bytes += weight_bytes(*p.w);
  }
  const ProfileScope scope(name, bytes);
  const bool decodes = !may_overwrite(tape) && (tape->in_pairs || options.activations == Activations::f32);
  if (!decodes) return matmul_all(products, options);
  for (const WeightProduct& p : products) multiply_decoded(*p.w, p.args, goes_in_pairs(*p.w, *tape));
}

std::vector<Tensor> apply(const Tensor& x, std::span<const Linear* const> layers, const ComputeOptions& options,
                          Tape* tape) {
  Outputs out = outputs_for(x, layers);
  multiply(out.products, options, tape);
  for (size_t i = 0; i < layers.size(); ++i) {
    const Linear& layer = *layers[i];
    const std::vector<AdapterPass> adapters = add_adapters(x, layer, tape, out.y[i]);
    if (is_traced(x, layer, tape)) record(x, layer, adapters, out.y[i], *tape);
    LinearObserver::notify({.layer = layer, .x = x, .options = options, .y = out.y[i]});
  }
  return std::move(out.y);
}

Tensor table_rows(std::span<const int32_t> ids, const Weight& table) {
  const Shape shape = weight_shape(table);
  Tensor out = Tensor::uninitialized(DType::f32, {static_cast<int64_t>(ids.size()), shape[1]});
  float* row = out.f32();
  for (const int32_t id : ids) {
    if (id < 0 || id >= shape[0]) {
      fail(ErrorCode::invalid_argument,
           "token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(shape[0]));
    }
    decode_rows(table, id, id + 1, row);
    row += shape[1];
  }
  return out;
}

/// sum[rows[i]] += dy[i]
void add_to_rows(std::span<const int32_t> rows, const Tensor& dy, Tensor& sum) {
  const int64_t cols = dy.cols();
  parallel_for(cols, kColumnGrain, [&](int64_t begin, int64_t end) {
    for (size_t i = 0; i < rows.size(); ++i) {
      const float* from = dy.f32() + static_cast<int64_t>(i) * cols;
      kernels().axpy(1.0f, from + begin, sum.f32() + rows[i] * cols + begin, end - begin);
    }
  });
}

}  // namespace

Tensor linear(const Tensor& x, const Linear& layer, const ComputeOptions& options, Tape* tape) {
  if (layer.fake_quant) return fake_quant_linear(x, layer, options, tape);
  const Linear* one = &layer;
  return std::move(apply(x, {&one, 1}, options, tape)[0]);
}

std::vector<Tensor> linear_all(const Tensor& x, std::initializer_list<const Linear*> layers,
                               const ComputeOptions& options, Tape* tape) {
  if (std::any_of(layers.begin(), layers.end(), [](const Linear* layer) { return layer->fake_quant != nullptr; })) {
    std::vector<Tensor> out;
    for (const Linear* layer : layers) out.push_back(linear(x, *layer, options, tape));
    return out;
  }
  return apply(x, layers, options, tape);
}

Tensor embedding(std::span<const int32_t> ids, const Embedding& table, Tape* tape) {
  const ProfileScope scope("embedding");
  Tensor out = table_rows(ids, table.weight);
  for (const auto& lora : table.adapters) add_embedding_lora(ids, *lora, out);
  if (may_overwrite(tape)) return out;
  const Tape::Slot to = slot_of(*tape, table.weight);
  const bool traced =
      to != Tape::kNone || std::any_of(table.adapters.begin(), table.adapters.end(),
                                       [&](const auto& l) { return nibble::is_traced(tape, l->a, l->b); });
  if (!traced) return out;
  tape->record(out, [to, shape = weight_shape(table.weight), rows = std::vector<int32_t>(ids.begin(), ids.end()),
                     adapters = table.adapters](Tape& t, const Tensor& dy) {
    if (to != Tape::kNone) add_to_rows(rows, dy, t.sum(to, shape));
    for (const auto& lora : adapters) {
      const LoraSlots slots = {.x = Tape::kNone, .a = t.slot(lora->a), .b = t.slot(lora->b)};
      embedding_lora_backward(rows, *lora, slots, dy, t);
    }
  });
  return out;
}

}  // namespace nibble
