// Quantizing a model folder: which layers, to what, and the report of what each lost.
#include "nibble/quantize.h"

#include <algorithm>
#include <future>
#include <set>

#include "core/error.h"
#include "core/parallel.h"
#include "io/bnb_names.h"
#include "io/model_files.h"
#include "models/registry.h"
#include "models/skip.h"
#include "quant/error_stats.h"
#include "tasks/model_output.h"
#include "tasks/side_files.h"
#include "tasks/weights_writer.h"

namespace nibble {
namespace {

/// What becomes of each tensor of the source.
struct Recipe {
  const Format* format = nullptr;
  EncodeOptions encode;
  std::set<std::string, std::less<>> quantized;  // tensor names
  std::set<std::string, std::less<>> in_out;     // tensors that dense files hold as [in, out]
  std::vector<std::string> kept_linears;         // module names, the head among them
  std::string tied_head;                         // a head without a matrix of its own
  std::optional<DType> dense_dtype;              // of all other tensors; nullopt = as they are
};

EncodeOptions encode_options(const QuantizeOptions& options) {
  return {.block = options.block,
          .double_quant = options.double_quant,
          .granularity = parse_granularity(options.granularity)};
}

void refuse_quantized_source(const ModelFiles& files) {
  if (files.is_gguf()) return;  // its block formats are a starting point like any other
  for (const SourceTensor& tensor : files.weights->tensors()) {
    if (!is_dense(tensor)) {
      fail(ErrorCode::unsupported, files.path.string() + ": " + tensor.name + ": is quantized already (" +
                                       tensor.format + "); quantize the original, or use 'nibble dequantize' first");
    }
  }
}

void require_floats(const ModelFiles& files, std::span<const Parameter> parameters) {
  for (const Parameter& parameter : parameters) {
    const SourceTensor* tensor = files.weights->find(parameter.name);
    if (tensor == nullptr || !is_dense(*tensor) || is_float(stored_dtype(*tensor))) continue;
    refuse_elements(*files.weights, parameter.name, stored_dtype(*tensor));
  }
}

Recipe make_recipe(const ModelFiles& files, const QuantizeOptions& options) {
  Recipe recipe;
  recipe.format = &find_format(options.format);
  recipe.encode = encode_options(options);
  check_encode_options(*recipe.format, recipe.encode);
  check_compute_options({.compute_dtype = options.compute_dtype, .int8_threshold = options.int8_threshold});
  refuse_quantized_source(files);
  recipe.dense_dtype = dense_dtype_for(files, *recipe.format);
  const auto [info, parameters, tied_head] = outline_model(files.config, files.path.string(), files.weights.get());
  recipe.tied_head = tied_head;
  check_skip_names(options.skip, parameters);
  require_floats(files, parameters);
  for (const Parameter& parameter : parameters) {
    if (parameter.role != Role::linear && parameter.role != Role::head) continue;
    if (parameter.orientation == Orientation::in_out) recipe.in_out.insert(parameter.name);
    const std::string_view module = module_of(parameter.name);
    const bool keep = parameter.role == Role::head || is_skipped(module, options.skip);
    if (keep) {
      recipe.kept_linears.emplace_back(module);
    } else if (!recipe.format->dense) {
      recipe.quantized.insert(parameter.name);
    }
  }
  return recipe;
}

/// Whether rows and columns change places: between a dense file and a quantized one, for what dense files hold as
/// [in, out].
bool is_turned(const SourceTensor& tensor, const Recipe& recipe) {
  return recipe.in_out.contains(tensor.name) && tensor.shape.size() == 2 &&
         is_dense(tensor) == recipe.quantized.contains(tensor.name);
}

PlannedTensor plan(const SourceTensor& tensor, const Recipe& recipe) {
  const Shape shape = is_turned(tensor, recipe) ? Shape{tensor.shape[1], tensor.shape[0]} : tensor.shape;
  const DType stored = stored_dtype(tensor);
  PlannedTensor planned;
  planned.parameters = element_count(tensor.shape);
  if (!recipe.quantized.contains(tensor.name)) {
    const DType kept = is_float(stored) ? recipe.dense_dtype.value_or(stored) : stored;
    planned.pieces.push_back({tensor.name, kept, shape});
    return planned;
  }
  const auto parts = std::get<QuantizedTensor>(layout(shape, stored, *recipe.format, recipe.encode));
  for (const auto& [name, piece] : stored_pieces(tensor.name, parts)) {
    planned.pieces.push_back({name, piece.dtype, piece.shape});
  }
  return planned;
}

TensorReport report_of(const SourceTensor& tensor, std::string format, const ErrorStats& stats, uint64_t bytes_after) {
  return {.name = tensor.name,
          .shape = tensor.shape,
          .format = std::move(format),
          .relative_error = stats.relative_error,
          .sqnr_db = stats.sqnr_db,
          .max_abs_error = stats.max_abs_error,
          .nan_count = stats.nan_count,
          .inf_count = stats.inf_count,
          .first_nonfinite = stats.first_nonfinite,
          .bytes_before = tensor.bytes,
          .bytes_after = bytes_after};
}

/// Converts one tensor after the other, in the source's order, and reports on each. The next one is read meanwhile.
class Converter {
 public:
  Converter(const WeightSource& source, const Recipe& recipe, QuantizeReport& report)
      : source_(source), recipe_(recipe), report_(report) {}

  NamedTensors convert_next(const PlannedTensor& planned) {
    const SourceTensor& tensor = source_.tensors()[at_++];
    const Weight weight = next_.valid() ? next_.get() : source_.load(tensor.name);
    if (at_ < source_.tensors().size()) {
      next_ = std::async([this, name = source_.tensors()[at_].name] {
        const SerialScope beside_the_conversion;
        return source_.load(name);
      });
    }
    return recipe_.quantized.contains(tensor.name) ? quantize(tensor, planned, weight) : keep(tensor, planned, weight);
  }

 private:
  NamedTensors keep(const SourceTensor& tensor, const PlannedTensor& planned, const Weight& weight) {
    const auto* dense = std::get_if<Tensor>(&weight);
    if (dense && !is_float(dense->dtype)) return {{tensor.name, *dense}};
    Tensor values = dense ? *dense : decode(weight);
    if (is_turned(tensor, recipe_)) values = values.transposed();
    const Tensor stored = values.cast(planned.pieces[0].dtype);
    report_.kept.push_back(
        report_of(tensor, std::string(dtype_name(stored.dtype)), error_stats(values, stored), stored.bytes()));
    return {{tensor.name, stored}};
  }

  NamedTensors quantize(const SourceTensor& tensor, const PlannedTensor& planned, const Weight& weight) {
    Tensor values = widen(weight);
    if (is_turned(tensor, recipe_)) values = values.transposed();
    EncodeOptions options = recipe_.encode;
    options.source_dtype = stored_dtype(tensor);
    const Weight encoded = encode(values, *recipe_.format, options);
    report_.tensors.push_back(
        report_of(tensor, std::string(recipe_.format->name), error_stats(values, encoded), planned.bytes()));
    return stored_pieces(tensor.name, std::get<QuantizedTensor>(encoded));
  }

  /// The values as f32, in memory that the next tensor uses again: fresh pages cost more than the conversion.
  Tensor widen(const Weight& weight) {
    const Shape shape = weight_shape(weight);
    const int64_t cols = shape.at(1), count = element_count(shape);
    if (room_.empty() || room_.count() < count) room_ = Tensor(DType::f32, {count});
    Tensor values = room_.slice_rows(0, count).reshaped(shape);
    parallel_for(shape.at(0), 16,
                 [&](int64_t begin, int64_t end) { decode_rows(weight, begin, end, values.f32() + begin * cols); });
    return values;
  }

  const WeightSource& source_;
  const Recipe& recipe_;
  QuantizeReport& report_;
  Tensor room_;
  size_t at_ = 0;             // the tensor that comes next
  std::future<Weight> next_;  // that one, read meanwhile
};

Json make_config(const ModelFiles& files, const QuantizeOptions& options, const Recipe& recipe) {
  Json config = files.config;
  if (recipe.dense_dtype) set_config_dtype(config, *recipe.dense_dtype);
  if (recipe.format->dense) return config;
  EncodeOptions encode = recipe.encode;
  if (encode.block == 0) encode.block = recipe.format->block;
  // Whoever reads a list of skipped modules quantizes all that it does not name, a tied head too.
  std::vector<std::string> skipped = recipe.kept_linears;
  if (!recipe.tied_head.empty()) skipped.push_back(recipe.tied_head);
  config.set("quantization_config",
             quantization_config(*recipe.format, encode, options.compute_dtype, skipped, options.int8_threshold));
  return config;
}

double bits_per_weight(const std::vector<TensorReport>& tensors) {
  double bits = 0, weights = 0;
  for (const TensorReport& tensor : tensors) {
    bits += 8.0 * static_cast<double>(tensor.bytes_after);
    weights += static_cast<double>(element_count(tensor.shape));
  }
  return weights > 0 ? bits / weights : 0;
}

}  // namespace

QuantizeReport quantize(const std::string& model, const std::string& out, const QuantizeOptions& options) {
  const ModelFiles files = open_model(model);
  const Recipe recipe = make_recipe(files, options);
  OutputFolder folder = model_output(out, options.overwrite ? Overwrite::yes : Overwrite::no, {files.path});
  const std::vector<SourceTensor>& tensors = files.weights->tensors();

  QuantizeReport report;
  report.output = out;
  report.format = options.format;
  std::vector<PlannedTensor> planned;
  for (const SourceTensor& tensor : tensors) {
    planned.push_back(plan(tensor, recipe));
    report.parameters += planned.back().parameters;
    report.bytes_before += tensor.bytes;
  }
  Converter converter(*files.weights, recipe, report);
  uint64_t bytes_read = 0;
  report.bytes_after = write_weights(folder, planned, options.max_shard_size, [&](size_t i) {
    NamedTensors pieces = converter.convert_next(planned[i]);
    bytes_read += tensors[i].bytes;
    if (options.progress) {
      options.progress({.unit = "tensors",
                        .done = static_cast<int64_t>(i + 1),
                        .total = static_cast<int64_t>(tensors.size()),
                        .bytes = static_cast<double>(bytes_read)});
    }
    return pieces;
  });
  write_side_files(folder, files, make_config(files, options, recipe));
  folder.commit();

  report.skipped = recipe.kept_linears;
  report.linear_bits_per_weight = bits_per_weight(report.tensors);
  if (const Json* names = files.config.find_value("architectures"); names && names->is_array()) {
    const auto& list = names->as_array("architectures");
    if (!list.empty() && list[0].is_string()) report.architecture = list[0].as_string("architectures");
  }
  return report;
}

}  // namespace nibble
