#include "train/parameters.h"

#include <cmath>
#include <map>

#include "core/error.h"
#include "ops/counter_random.h"
#include "ops/dora.h"
#include "ops/elementwise.h"

namespace nibble {
namespace {

/// FNV-1a: the same number for the same name everywhere.
uint64_t hash_of(std::string_view name) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211u;
  return hash;
}

class Choose final : public ParameterVisitor {
 public:
  explicit Choose(const std::function<bool(std::string_view)>& chosen) : chosen_(chosen) {}

  void linear(Linear& layer) override {
    weight(layer.name + ".weight", layer.weight);
    if (layer.bias) vector(layer.name + ".bias", *layer.bias);
  }
  void embedding(const std::string& name, Weight& table) override { weight(name + ".weight", table); }
  void vector(const std::string& name, Tensor& values) override {
    if (chosen_(name)) replace(name, values);
  }

  std::vector<TrainedParameter> parameters;

 private:
  void weight(const std::string& name, Weight& w) {
    auto* dense = std::get_if<Tensor>(&w);
    if (dense && copies_.count(dense->buffer.get())) {
      *dense = copies_.at(dense->buffer.get());
      return;
    }
    if (!chosen_(name)) return;
    if (dense == nullptr) {
      fail(ErrorCode::unsupported, name + ": is stored as " + std::string(std::get<QuantizedTensor>(w).format->name) +
                                       ", only dense weights can be trained; train an adapter instead");
    }
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
  std::map<const Buffer*, Tensor> copies_;  // by what they replace, for the tied head
  std::vector<Tensor> kept_;                // so that no address comes twice
};

class AddLora final : public ParameterVisitor {
 public:
  AddLora(const LoraOptions& options, const std::function<bool(std::string_view)>& chosen)
      : options_(options), chosen_(chosen) {}

  void linear(Linear& layer) override {
    if (!chosen_(layer.name)) return;
    const Shape shape = weight_shape(layer.weight);
    const auto rank = static_cast<float>(options_.rank);
    layer.adapters.push_back(
        std::make_shared<Lora>(Lora{.a = first_a(layer.name, shape[1]),
                                    .b = Tensor(DType::f32, {shape[0], options_.rank}),
                                    .scaling = options_.alpha / (options_.rslora ? std::sqrt(rank) : rank),
                                    .dropout = options_.dropout,
                                    .stream = hash_of(layer.name)}));
    Lora& lora = *layer.adapters.back();
    if (options_.dora) lora.magnitude = dora_row_lengths(layer.weight, lora);
    added = true;
  }
  void embedding(const std::string&, Weight&) override {}
  void vector(const std::string&, Tensor&) override {}

  bool added = false;

 private:
  Tensor first_a(const std::string& name, int64_t in) const {
    Tensor a(DType::f32, {options_.rank, in});
    const float bound = 1.0f / std::sqrt(static_cast<float>(in));
    const CounterRandom random(options_.seed, hash_of(name));
    for (int64_t i = 0; i < a.count(); ++i) {
      a.f32()[i] = bound * (2.0f * random.unit(static_cast<uint64_t>(i)) - 1.0f);
    }
    return a;
  }

  const LoraOptions& options_;
  const std::function<bool(std::string_view)>& chosen_;
};

class ListLora final : public ParameterVisitor {
 public:
  void linear(Linear& layer) override {
    for (const auto& lora : layer.adapters) {
      parameters.push_back({layer.name + ".lora_A.weight", lora->a});
      parameters.push_back({layer.name + ".lora_B.weight", lora->b});
      if (!lora->magnitude.empty()) parameters.push_back({layer.name + ".lora_magnitude_vector", lora->magnitude});
    }
  }
  void embedding(const std::string&, Weight&) override {}
  void vector(const std::string&, Tensor&) override {}

  std::vector<TrainedParameter> parameters;
};

}  // namespace

std::vector<TrainedParameter> train_parameters(Model& model, const std::function<bool(std::string_view name)>& chosen) {
  Choose visitor(chosen);
  model.visit(visitor);
  return visitor.parameters;
}

std::vector<TrainedParameter> add_lora(Model& model, const LoraOptions& options,
                                       const std::function<bool(std::string_view module)>& chosen) {
  if (options.rank < 1) {
    fail(ErrorCode::invalid_argument, "lora rank: found " + std::to_string(options.rank) + ", expected at least 1");
  }
  if (!(options.dropout >= 0 && options.dropout < 1)) {
    fail(ErrorCode::invalid_argument,
         "lora dropout: found " + std::to_string(options.dropout) + ", expected at least 0 and below 1");
  }
  AddLora visitor(options, chosen);
  model.visit(visitor);
  if (!visitor.added) fail(ErrorCode::invalid_argument, "lora: no Linear layer of the model is chosen");
  return lora_parameters(model);
}

std::vector<TrainedParameter> lora_parameters(Model& model) {
  ListLora visitor;
  model.visit(visitor);
  return visitor.parameters;
}

}  // namespace nibble
