#include "core/error.h"
#include "io/model_files.h"
#include "nibble/quantize.h"
#include "tasks/side_files.h"
#include "tasks/weights_writer.h"

namespace nibble {

DequantizeReport dequantize(const std::string& model, const std::string& out, const DequantizeOptions& options) {
  if (!is_float(options.dtype) || options.dtype == DType::f64) {
    fail(ErrorCode::invalid_argument,
         "dtype: found " + std::string(dtype_name(options.dtype)) + ", expected fp32, fp16 or bf16");
  }
  const ModelFiles files = open_model(model);
  OutputFolder folder(out, options.overwrite ? Overwrite::yes : Overwrite::no);
  const std::vector<SourceTensor>& tensors = files.weights->tensors();
  DequantizeReport report;
  report.output = out;
  std::vector<PlannedTensor> planned;
  for (const SourceTensor& tensor : tensors) {
    planned.push_back(
        {.pieces = {{tensor.name, options.dtype, tensor.shape}}, .parameters = element_count(tensor.shape)});
    report.bytes_before += tensor.bytes;
  }
  report.bytes_after = write_weights(folder, planned, options.max_shard_size, [&](size_t i) -> NamedTensors {
    const Weight weight = files.weights->load(tensors[i].name);
    if (options.progress) {
      options.progress(
          {.unit = "tensors", .done = static_cast<int64_t>(i + 1), .total = static_cast<int64_t>(tensors.size())});
    }
    return {{tensors[i].name, decode(weight).cast(options.dtype)}};
  });
  Json config = files.config;
  config.erase("quantization_config");
  set_config_dtype(config, options.dtype);
  write_side_files(folder, files, config);
  folder.commit();
  return report;
}

}  // namespace nibble
