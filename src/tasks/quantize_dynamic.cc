#include "nibble/quantize_dynamic.h"

#include "core/error.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

std::shared_ptr<LoadedModel> load_quantized(const LoadedModel& model, const std::vector<std::string>& modules,
                                            DType dtype, const DynamicOptions& dynamic) {
  for (const std::string& module : modules) {
    if (module != "Linear") {
      fail(ErrorCode::invalid_argument, "modules: found '" + module + "', only \"Linear\" can be quantized");
    }
  }
  if (modules.empty()) fail(ErrorCode::invalid_argument, "modules: is empty, expected \"Linear\"");
  if (dtype != DType::i8 && dtype != DType::f16) {
    fail(ErrorCode::invalid_argument, "dtype: found " + std::string(dtype_name(dtype)) + ", expected int8 or fp16");
  }
  if (model.options.quantization_config || !model.options.format.empty()) {
    fail(ErrorCode::unsupported, model.path + ": was quantized while loading already");
  }
  LoadModelOptions options = model.options;
  options.format = dtype == DType::i8 ? "int8-dynamic" : "fp16";
  options.granularity = dynamic.granularity;
  options.activation_range = dynamic.activation_range;
  options.reduce_range = dynamic.reduce_range;
  options.quantize_head = true;
  return load_model(model.path, options);
}

}  // namespace

SequenceClassifier quantize_dynamic(const SequenceClassifier& model, const std::vector<std::string>& modules,
                                    DType dtype, const DynamicOptions& options) {
  return SequenceClassifier(load_quantized(model.internal(), modules, dtype, options));
}

CausalLM quantize_dynamic(const CausalLM& model, const std::vector<std::string>& modules, DType dtype,
                          const DynamicOptions& options) {
  return CausalLM(load_quantized(model.internal(), modules, dtype, options));
}

}  // namespace nibble
