#include "tasks/qat_folder.h"

#include <map>
#include <set>

#include "core/error.h"
#include "io/bnb_names.h"
#include "io/model_files.h"
#include "io/quantization_config.h"
#include "models/registry.h"
#include "models/skip.h"
#include "ops/fake_quant.h"
#include "tasks/side_files.h"
#include "tasks/stored_form.h"
#include "tasks/weights_writer.h"

namespace nibble {
namespace {

constexpr uint64_t kMaxShardSize = 5'000'000'000;

template <class Value>
using ByName = std::map<std::string, Value, std::less<>>;

struct Layers {
  ByName<const Linear*> prepared;  // by the name of their weight
  std::vector<std::string> kept;   // modules of all others
};

Layers layers_of(const LoadedModel& model) {
  Layers layers;
  for_each_linear(*model.model, [&](Linear& layer) {
    if (layer.fake_quant) {
      layers.prepared.emplace(layer.name + ".weight", &layer);
    } else {
      layers.kept.push_back(layer.name);
    }
  });
  return layers;
}

/// What becomes of each tensor of the source.
class QatWriter {
 public:
  QatWriter(const LoadedModel& model, const ModelFiles& files, const std::vector<TrainedParameter>& trained)
      : files_(files), stored_(files.config, files.path.string(), model.parameters), layers_(layers_of(model)) {
    if (layers_.prepared.empty()) fail(ErrorCode::internal, model.path + ": is not prepared for qat");
    for (const TrainedParameter& p : trained) trained_.emplace(p.name, p.value);
    compute_.reduce_range = model.options.reduce_range;
    compute_dtype_ = model.options.compute_dtype.value_or(DType::f32);
  }

  PlannedTensor plan(const SourceTensor& tensor) const {
    PlannedTensor planned = {.pieces = {}, .parameters = element_count(tensor.shape)};
    for (const auto& [name, piece] : pieces(tensor, Data::described)) {
      planned.pieces.push_back({name, piece.dtype, piece.shape});
    }
    return planned;
  }

  NamedTensors convert(const SourceTensor& tensor) const { return pieces(tensor, Data::computed); }

  Json config() const {
    Json config = files_.config;
    const FakeQuant& fake = *layers_.prepared.begin()->second->fake_quant;
    EncodeOptions encode = fake.encode;
    if (encode.block == 0) encode.block = fake.format->block;
    if (files_.is_gguf()) set_config_dtype(config, DType::f32);
    config.set("quantization_config", quantization_config(*fake.format, encode, compute_dtype_, layers_.kept));
    return config;
  }

 private:
  enum class Data { described, computed };

  NamedTensors pieces(const SourceTensor& tensor, Data data) const {
    if (const auto layer = layers_.prepared.find(tensor.name); layer != layers_.prepared.end()) {
      return stored_pieces(tensor.name, deployed(*layer->second, data));
    }
    const auto found = trained_.find(tensor.name);
    if (data == Data::described) {
      const bool is_float_now = found != trained_.end() || !is_dense(tensor);
      return {{tensor.name, Tensor::described(is_float_now ? DType::f32 : stored_dtype(tensor), tensor.shape)}};
    }
    if (found != trained_.end()) return {{tensor.name, stored_.to_file(tensor.name, found->second)}};
    const Weight kept = files_.weights->load(tensor.name);
    return {{tensor.name, is_dense(tensor) ? std::get<Tensor>(kept) : decode(kept)}};
  }

  QuantizedTensor deployed(const Linear& layer, Data data) const {
    if (data == Data::computed) return deployed_weight(layer, compute_);
    const FakeQuant& fake = *layer.fake_quant;
    auto empty = std::get<QuantizedTensor>(layout(weight_shape(layer.weight), DType::f32, *fake.format, fake.encode));
    if (fake.input && !fake.input->extents().empty()) {
      empty.parts["input_scale"] = Tensor::described(DType::f32, {1});
      empty.parts["input_zero_point"] = Tensor::described(DType::i32, {1});
    }
    return empty;
  }

  const ModelFiles& files_;
  StoredForm stored_;
  Layers layers_;
  ByName<Tensor> trained_;
  ComputeOptions compute_;
  DType compute_dtype_ = DType::f32;  // recorded for whoever runs it
};

}  // namespace

std::vector<std::string> prepare_qat_model(LoadedModel& model, const QatConfig& config,
                                           const std::vector<std::string>& skip) {
  const ModelFiles files = open_model(model.path);
  const std::vector<Parameter> parameters = list_parameters(files.config, model.path, files.weights.get());
  check_skip_names(skip, parameters);
  std::set<std::string, std::less<>> chosen;
  for (const Parameter& p : parameters) {
    const std::string_view module = module_of(p.name);
    if (p.role == Role::linear && !is_skipped(module, skip)) chosen.emplace(module);
  }
  return prepare_qat(*model.model, config, [&](std::string_view module) { return chosen.contains(module); });
}

std::vector<std::string> unprepared_layers(const LoadedModel& model) { return layers_of(model).kept; }

void write_qat_model(OutputFolder& folder, const LoadedModel& model, const std::vector<TrainedParameter>& trained) {
  const ModelFiles files = open_model(model.path);
  const QatWriter writer(model, files, trained);
  const std::vector<SourceTensor> tensors = trained_model_tensors(files);
  std::vector<PlannedTensor> planned;
  for (const SourceTensor& tensor : tensors) planned.push_back(writer.plan(tensor));
  write_weights(folder, planned, kMaxShardSize, [&](size_t i) { return writer.convert(tensors[i]); });
  write_side_files(folder, files, writer.config());
}

}  // namespace nibble
