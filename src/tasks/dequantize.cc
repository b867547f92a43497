#include <set>

#include "core/error.h"
#include "io/model_files.h"
#include "models/registry.h"
#include "nibble/quantize.h"
#include "tasks/model_output.h"
#include "tasks/side_files.h"
#include "tasks/weights_writer.h"

namespace nibble {
namespace {

/// Quantized weights, [out, in], that a dense file holds as [in, out]. None that are known of in an unknown family.
std::set<std::string, std::less<>> turned_weights(const ModelFiles& files) {
  std::set<std::string, std::less<>> names;
  if (find_architecture_or_null(files.config) == nullptr) return names;
  for (const Parameter& parameter : list_parameters(files.config, files.path.string(), files.weights.get())) {
    const SourceTensor* stored = files.weights->find(parameter.name);
    if (parameter.orientation == Orientation::in_out && stored && !is_dense(*stored)) names.insert(parameter.name);
  }
  return names;
}

}  // namespace

DequantizeReport dequantize(const std::string& model, const std::string& out, const DequantizeOptions& options) {
  if (!is_float(options.dtype) || options.dtype == DType::f64) {
    fail(ErrorCode::invalid_argument,
         "dtype: found " + std::string(dtype_name(options.dtype)) + ", expected fp32, fp16 or bf16");
  }
  const ModelFiles files = open_model(model);
  OutputFolder folder = model_output(out, options.overwrite ? Overwrite::yes : Overwrite::no, {files.path});
  const std::vector<SourceTensor>& tensors = files.weights->tensors();
  DequantizeReport report;
  report.output = out;
  const std::set<std::string, std::less<>> turned = turned_weights(files);
  std::vector<PlannedTensor> planned;
  for (const SourceTensor& tensor : tensors) {
    const Shape shape = turned.contains(tensor.name) ? Shape{tensor.shape.at(1), tensor.shape.at(0)} : tensor.shape;
    const DType stored = stored_dtype(tensor);
    planned.push_back({.pieces = {{tensor.name, is_float(stored) ? options.dtype : stored, shape}},
                       .parameters = element_count(shape)});
    report.bytes_before += tensor.bytes;
  }
  report.bytes_after = write_weights(folder, planned, options.max_shard_size, [&](size_t i) -> NamedTensors {
    const Weight weight = files.weights->load(tensors[i].name);
    if (options.progress) {
      options.progress(
          {.unit = "tensors", .done = static_cast<int64_t>(i + 1), .total = static_cast<int64_t>(tensors.size())});
    }
    if (!is_float(stored_dtype(tensors[i]))) return {{tensors[i].name, std::get<Tensor>(weight)}};
    const Tensor values = decode(weight);
    const bool is_turned = turned.contains(tensors[i].name);
    return {{tensors[i].name, (is_turned ? values.transposed() : values).cast(options.dtype)}};
  });
  Json config = files.config;
  config.erase("quantization_config");
  set_config_dtype(config, options.dtype);
  write_side_files(folder, files, config);
  folder.commit();
  return report;
}

}  // namespace nibble
