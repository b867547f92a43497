#include "nibble/inspect.h"

#include <map>

#include "core/error.h"
#include "io/model_files.h"
#include "io/quantization_config.h"
#include "models/registry.h"

namespace nibble {
namespace {

/// The format that holds most of the weights, unless that is a dense one.
std::string quantization_of(const ModelFiles& files) {
  std::map<std::string, int64_t> weights;
  for (const SourceTensor& tensor : files.weights->tensors()) weights[tensor.format] += element_count(tensor.shape);
  std::string largest = "none";
  int64_t most = 0;
  for (const auto& [format, count] : weights) {
    const Format* row = find_format_or_null(format);
    if (row && !row->dense && count > most) {
      largest = format;
      most = count;
    }
  }
  const QuantizationConfig config = parse_quantization_config(files.config, files.path.string());
  return config.double_quant && largest != "none" ? largest + " + double quantization" : largest;
}

/// Zero where config.json does not say.
int64_t number(const Json& config, std::string_view key) {
  const Json* value = config.find_value(key);
  return value && value->is_integer() ? value->as_int(std::string(key)) : 0;
}

/// The shape of the model, in the family's own reading of config.json; of one that nibble cannot run, what the usual
/// keys say.
void describe_shape(const ModelFiles& files, ModelDescription& d) {
  try {
    const auto [info, parameters, tied_head] = outline_model(files.config, files.path.string(), files.weights.get());
    d.supported = true;
    d.vocab_size = info.vocab_size;
    d.context_length = info.context_length;
    d.layers = info.layers;
    for (const Parameter& p : parameters) {
      if (p.role == Role::embedding) d.hidden_size = std::max(d.hidden_size, p.shape.back());
    }
  } catch (const Error&) {
    d.vocab_size = number(files.config, "vocab_size");
    d.context_length = number(files.config, "max_position_embeddings");
    d.layers = number(files.config, "num_hidden_layers");
    d.hidden_size = number(files.config, "hidden_size");
  }
}

}  // namespace

ModelDescription inspect(const std::string& model) {
  const ModelFiles files = open_model(model);
  const Json& config = files.config;
  ModelDescription d;
  d.path = files.path.string();
  if (const Json* type = config.find_value("model_type"); type && type->is_string()) {
    d.model_type = type->as_string("model_type");
  }
  if (const Json* names = config.find_value("architectures"); names && names->is_array()) {
    const auto& list = names->as_array("architectures");
    if (!list.empty() && list[0].is_string()) d.architecture = list[0].as_string("architectures");
  }
  for (const SourceTensor& tensor : files.weights->tensors()) {
    d.parameters += element_count(tensor.shape);
    d.bytes += tensor.bytes;
    d.tensors.push_back({tensor.name, tensor.format, tensor.shape, tensor.bytes});
  }
  d.quantization = quantization_of(files);
  describe_shape(files, d);
  return d;
}

}  // namespace nibble
