#include "train/parameters.h"

#include <cmath>
#include <map>
#include <numbers>

#include "core/checksum.h"
#include "core/counter_random.h"
#include "core/error.h"
#include "ops/dora.h"
#include "ops/elementwise.h"

namespace nibble {
namespace {

uint64_t hash_of(std::string_view name) {
  Checksum checksum;
  checksum.add(name);
  return checksum.value();
}

[[noreturn]] void refuse_quantized(const QuantizedParameter& p) {
  fail(ErrorCode::unsupported, p.name + ": is stored as " + std::string(p.format) +
                                   ", only dense weights can be trained; train an adapter instead");
}

class FindQuantized final : public ParameterVisitor {
 public:
  explicit FindQuantized(const std::function<bool(std::string_view)>& chosen) : chosen_(chosen) {}

  void linear(Linear& layer) override { look_at(layer.name + ".weight", layer.weight); }
  void embedding(Embedding& table) override { look_at(table.name + ".weight", table.weight); }
  void vector(const std::string&, Tensor&) override {}

  std::optional<QuantizedParameter> first = {};

 private:
  void look_at(const std::string& name, const Weight& weight) {
    const auto* quantized = std::get_if<QuantizedTensor>(&weight);
    if (quantized && !first && chosen_(name)) first = {name, quantized->format->name};
  }

  const std::function<bool(std::string_view)>& chosen_;
};

class Choose final : public ParameterVisitor {
 public:
  Choose(const std::function<bool(std::string_view)>& chosen, TiedHead tied_head)
      : chosen_(chosen), tied_head_(tied_head) {}

  void linear(Linear& layer) override {
    weight(layer.name + ".weight", layer.weight);
    if (layer.bias) vector(layer.name + ".bias", *layer.bias);
  }
  void embedding(Embedding& table) override { weight(table.name + ".weight", table.weight); }
  void vector(const std::string& name, Tensor& values) override {
    if (chosen_(name)) replace(name, values);
  }

  std::vector<TrainedParameter> parameters;

 private:
  void weight(const std::string& name, Weight& w) {
    auto* dense = std::get_if<Tensor>(&w);
    if (tied_head_ == TiedHead::follows && dense && copies_.count(dense->buffer.get())) {
      *dense = copies_.at(dense->buffer.get());
      return;
    }
    if (!chosen_(name)) return;
    if (dense == nullptr) refuse_quantized({name, std::get<QuantizedTensor>(w).format->name});
    replace(name, *dense);
  }

  void replace(const std::string& name, Tensor& value) {
    const Tensor old = value;
    value = old.dtype == DType::f32 ? copy_of(old) : old.cast(DType::f32);
    copies_.emplace(old.buffer.get(), value);
    kept_.push_back(old);
    parameters.push_back({name, value});
  }

  const std::function<bool(std::string_view)>& chosen_;
  TiedHead tied_head_;
  std::map<const Buffer*, Tensor> copies_;  // by what they replace, for the tied head
  std::vector<Tensor> kept_;                // so that no address comes twice
};

void check(const LoraOptions& options) {
  if (options.rank < 1) {
    fail(ErrorCode::invalid_argument, "lora rank: found " + std::to_string(options.rank) + ", expected at least 1");
  }
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    fail(ErrorCode::invalid_argument,
         "lora dropout: found " + std::to_string(options.dropout) + ", expected at least 0 and below 1");
  }
}

/// Within +-bound.
Tensor uniform_values(const CounterRandom& random, Shape shape, float bound) {
  Tensor values(DType::f32, std::move(shape));
  for (int64_t i = 0; i < values.count(); ++i) {
    values.f32()[i] = bound * (2.0f * random.unit(static_cast<uint64_t>(i)) - 1.0f);
  }
  return values;
}

/// Box and Muller's transform of two uniform numbers each.
Tensor normal_values(const CounterRandom& random, Shape shape, double width) {
  Tensor values(DType::f32, std::move(shape));
  for (int64_t i = 0; i < values.count(); ++i) {
    const auto index = static_cast<uint64_t>(2 * i);
    const double radius = std::sqrt(-2.0 * std::log(1.0 - static_cast<double>(random.unit(index))));
    const double angle = 2.0 * std::numbers::pi * static_cast<double>(random.unit(index + 1));
    values.f32()[i] = static_cast<float>(width * radius * std::cos(angle));
  }
  return values;
}

float inverse_root(int64_t n) { return 1.0f / std::sqrt(static_cast<float>(n)); }

class AddLora final : public ParameterVisitor {
 public:
  AddLora(const LoraPlan& linears, const LoraPlan& embeddings) : linears_(linears), embeddings_(embeddings) {}

  void linear(Linear& layer) override {
    const std::optional<LoraOptions> options = linears_(layer.name);
    if (!options) return;
    check(*options);
    layer.adapters.push_back(std::make_shared<Lora>(new_lora(layer, *options)));
    Lora& lora = *layer.adapters.back();
    if (options->dora) lora.magnitude = dora_row_lengths(layer.weight, lora);
    list_lora(layer.name, lora, parameters);
  }
  void embedding(Embedding& table) override {
    const std::optional<LoraOptions> options = embeddings_ ? embeddings_(table.name) : std::nullopt;
    if (!options) return;
    check(*options);
    if (options->dora) fail(ErrorCode::unsupported, "lora: " + table.name + ": DoRA of an embedding is not supported");
    table.adapters.push_back(std::make_shared<Lora>(new_lora(table, *options)));
    list_embedding_lora(table.name, *table.adapters.back(), parameters);
  }
  void vector(const std::string&, Tensor&) override {}

  std::vector<TrainedParameter> parameters;

 private:
  static Lora new_lora(const Linear& layer, const LoraOptions& o) {
    const Shape shape = weight_shape(layer.weight);
    const CounterRandom random(o.seed, hash_of(layer.name)), more(o.seed + 1, hash_of(layer.name));
    const Shape a = {o.rank, shape[1]}, b = {shape[0], o.rank};
    return {.a = o.init == LoraInit::gaussian ? normal_values(random, a, 1.0 / static_cast<double>(o.rank))
                                              : uniform_values(random, a, inverse_root(shape[1])),
            .b = o.init == LoraInit::random ? uniform_values(more, b, inverse_root(o.rank)) : Tensor(DType::f32, b),
            .scaling = lora_scaling(o),
            .dropout = o.dropout,
            .stream = dropout_stream(layer.name)};
  }

  static Lora new_lora(const Embedding& table, const LoraOptions& o) {
    const Shape shape = weight_shape(table.weight);
    const CounterRandom random(o.seed, hash_of(table.name)), more(o.seed + 1, hash_of(table.name));
    const Shape a = {o.rank, shape[0]}, b = {shape[1], o.rank};
    return {.a = o.init == LoraInit::random ? normal_values(more, a, 1.0) : Tensor(DType::f32, a),
            .b = normal_values(random, b, 1.0),
            .scaling = lora_scaling(o)};
  }

  const LoraPlan& linears_;
  const LoraPlan& embeddings_;
};

class ListLora final : public ParameterVisitor {
 public:
  void linear(Linear& layer) override {
    for (const auto& lora : layer.adapters) list_lora(layer.name, *lora, parameters);
  }
  void embedding(Embedding& table) override {
    for (const auto& lora : table.adapters) list_embedding_lora(table.name, *lora, parameters);
  }
  void vector(const std::string&, Tensor&) override {}

  std::vector<TrainedParameter> parameters;
};

}  // namespace

std::vector<TrainedParameter> train_parameters(Model& model, const std::function<bool(std::string_view name)>& chosen,
                                               TiedHead tied_head) {
  Choose visitor(chosen, tied_head);
  model.visit(visitor);
  return visitor.parameters;
}

std::optional<QuantizedParameter> first_quantized(Model& model,
                                                  const std::function<bool(std::string_view name)>& chosen) {
  FindQuantized visitor(chosen);
  model.visit(visitor);
  return visitor.first;
}

void check_trainable(Model& model, const std::function<bool(std::string_view name)>& chosen) {
  if (const auto quantized = first_quantized(model, chosen)) refuse_quantized(*quantized);
}

float lora_scaling(const LoraOptions& o) {
  const auto rank = static_cast<double>(o.rank);
  return static_cast<float>(o.alpha / (o.rslora ? std::sqrt(rank) : rank));
}

uint64_t dropout_stream(std::string_view module) { return hash_of(module); }

void list_lora(const std::string& module, const Lora& lora, std::vector<TrainedParameter>& parameters) {
  parameters.push_back({module + ".lora_A.weight", lora.a});
  parameters.push_back({module + ".lora_B.weight", lora.b});
  if (!lora.magnitude.empty()) parameters.push_back({module + ".lora_magnitude_vector", lora.magnitude});
}

void list_embedding_lora(const std::string& module, const Lora& lora, std::vector<TrainedParameter>& parameters) {
  parameters.push_back({module + ".lora_embedding_A", lora.a});
  parameters.push_back({module + ".lora_embedding_B", lora.b});
}

std::vector<TrainedParameter> add_lora(Model& model, const LoraPlan& linears, const LoraPlan& embeddings) {
  AddLora visitor(linears, embeddings);
  model.visit(visitor);
  if (visitor.parameters.empty()) {
    fail(ErrorCode::invalid_argument, "lora: no Linear layer of the model is chosen");
  }
  return visitor.parameters;
}

std::vector<TrainedParameter> add_lora(Model& model, const LoraOptions& options,
                                       const std::function<bool(std::string_view module)>& chosen) {
  check(options);
  return add_lora(model, [&](std::string_view module) {
    return chosen(module) ? std::optional<LoraOptions>(options) : std::nullopt;
  });
}

std::vector<TrainedParameter> lora_parameters(Model& model) {
  ListLora visitor;
  model.visit(visitor);
  return visitor.parameters;
}

}  // namespace nibble
