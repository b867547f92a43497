#include "core/error.h"
#include "io/peft.h"
#include "nibble/lora.h"
#include "tasks/adapter.h"
#include "tasks/model_output.h"

namespace nibble {
namespace {

/// Elements of everything in a model.
class CountParameters final : public ParameterVisitor {
 public:
  void linear(Linear& layer) override {
    count += element_count(weight_shape(layer.weight));
    if (layer.bias) count += layer.bias->count();
    count_adapters(layer.adapters);
  }
  void embedding(Embedding& table) override {
    count += element_count(weight_shape(table.weight));
    count_adapters(table.adapters);
  }
  void vector(const std::string&, Tensor& values) override { count += values.count(); }

  int64_t count = 0;

 private:
  void count_adapters(const std::vector<std::shared_ptr<Lora>>& adapters) {
    for (const auto& lora : adapters) {
      count += lora->a.count() + lora->b.count() + (lora->magnitude.empty() ? 0 : lora->magnitude.count());
    }
  }
};

template <class Public>
PeftModel adapt(const Public& model, const LoraConfig& config, uint64_t seed) {
  auto adapter = std::make_shared<AttachedAdapter>(new_adapter(model.internal(), config, seed));
  return {model.shared(), std::move(adapter)};
}

}  // namespace

PeftModel get_peft_model(const CausalLM& model, const LoraConfig& config, uint64_t seed) {
  return adapt(model, config, seed);
}

PeftModel get_peft_model(const SequenceClassifier& model, const LoraConfig& config, uint64_t seed) {
  return adapt(model, config, seed);
}

LoraConfig load_lora_config(const std::string& folder) { return open_adapter(folder).config; }

PeftModel::ParameterCounts PeftModel::parameter_counts() const {
  CountParameters visitor;
  model_->model->visit(visitor);
  ParameterCounts counts = {.trainable = 0, .all = visitor.count};
  for (const TrainedParameter& p : adapter_->parameters) counts.trainable += p.value.count();
  return counts;
}

const LoraConfig& PeftModel::config() const { return adapter_->config; }

void PeftModel::save_pretrained(const std::string& folder, Existing existing) const {
  OutputFolder out =
      model_output(folder, existing == Existing::overwrite ? Overwrite::yes : Overwrite::no, {model_->path});
  write_adapter(out, *model_, *adapter_);
  out.commit();
}

}  // namespace nibble
