// The weights: what `quantize` would write, and what a loaded model holds in memory.
#include <algorithm>
#include <cctype>

#include "core/dtype.h"
#include "core/error.h"
#include "io/bnb_names.h"
#include "io/quantization_config.h"
#include "models/skip.h"
#include "quant/resident.h"
#include "tasks/loaded_model.h"
#include "tasks/plan_model.h"
#include "tasks/side_files.h"

namespace nibble {
namespace {

/// What the pieces of a quantized matrix are, by the ends of their names; the matrix itself has none of these.
struct PieceKind {
  std::string_view ending;
  uint64_t WeightBytes::*part;
};
constexpr PieceKind kPieceKinds[] = {{".absmax", &WeightBytes::scales},
                                     {".SCB", &WeightBytes::scales},
                                     {".weight_scale", &WeightBytes::scales},
                                     {".weight_zero_point", &WeightBytes::scales},
                                     {".nested_absmax", &WeightBytes::double_quant},
                                     {".nested_quant_map", &WeightBytes::double_quant}};

uint64_t WeightBytes::*piece_part(std::string_view piece) {
  for (const PieceKind& kind : kPieceKinds) {
    if (piece.ends_with(kind.ending)) return kind.part;
  }
  return &WeightBytes::tables;
}

/// What becomes of the model's tensors.
struct Target {
  const Format* format = nullptr;  // of the Linear layers; null: all stays as it is
  EncodeOptions encode;
  std::optional<DType> dense_dtype;  // of everything else; nullopt = as it is
  const std::vector<std::string>* skip;
  const Format* head = nullptr;  // of the output head in memory; null: as it is stored
};

Target make_target(const PlanModel& model, const PlanOptions& options) {
  Target target = {.format = nullptr, .encode = {}, .dense_dtype = std::nullopt, .skip = &options.skip};
  if (options.format.empty()) {
    target.encode.double_quant = parse_quantization_config(model.config, model.name).double_quant;
    target.encode.source_dtype = config_dtype(model.config, model.name).value_or(DType::f32);
    return target;
  }
  target.format = &find_format(options.format);
  target.encode = {.block = options.block,
                   .double_quant = options.double_quant,
                   .granularity = parse_granularity(options.granularity)};
  check_encode_options(*target.format, target.encode);
  target.dense_dtype = target.format->dense;
  if (model.is_gguf && !target.format->dense) {
    target.dense_dtype = config_dtype(model.config, model.name).value_or(DType::f16);
  }
  if (!model.is_gguf && model.is_quantized()) {
    fail(ErrorCode::unsupported,
         model.name + ": is quantized already (" + model.format() + "); plan it as it is, or give the original model");
  }
  return target;
}

bool becomes_quantized(const PlanTensor& t, const Target& target) {
  return target.format && !target.format->dense && t.parameter && t.parameter->role == Role::linear &&
         !is_skipped(module_of(t.stored.name), *target.skip);
}

/// Dense files hold some matrices as [in, out]; quantized ones are always [out, in].
Shape target_shape(const PlanTensor& t, bool quantized) {
  const bool in_out = t.parameter && t.parameter->orientation == Orientation::in_out && t.stored.shape.size() == 2;
  const bool turned = in_out && is_dense(t.stored) == quantized;
  return turned ? Shape{t.stored.shape[1], t.stored.shape[0]} : t.stored.shape;
}

PlannedTensor layout_of(const PlanTensor& t, const Target& target) {
  const bool quantized = becomes_quantized(t, target);
  const Shape shape = target_shape(t, quantized);
  PlannedTensor planned;
  planned.parameters = element_count(shape);
  if (!quantized) {
    const DType stored = stored_dtype(t.stored);
    planned.pieces.push_back({t.stored.name, is_float(stored) ? target.dense_dtype.value_or(stored) : stored, shape});
    return planned;
  }
  const Weight parts = layout(shape, stored_dtype(t.stored), *target.format, target.encode);
  for (const auto& [name, piece] : stored_pieces(t.stored.name, std::get<QuantizedTensor>(parts))) {
    planned.pieces.push_back({name, piece.dtype, piece.shape});
  }
  return planned;
}

/// The part of a tensor that is not a quantized matrix.
uint64_t WeightBytes::*part_of(const PlanTensor& t, const std::vector<PlanTensor>& tensors) {
  if (!t.parameter) return &WeightBytes::other;
  if (t.parameter->role == Role::linear) return &WeightBytes::linears;
  if (t.parameter->role == Role::head) return &WeightBytes::head;
  if (t.parameter->role == Role::embedding) return &WeightBytes::embeddings;
  const std::string& name = t.stored.name;
  if (!name.ends_with(".bias")) return &WeightBytes::norms;
  // A norm has a bias too: that of a Linear stands beside a matrix.
  const std::string weight = name.substr(0, name.size() - 4) + "weight";
  const bool of_linear = std::any_of(tensors.begin(), tensors.end(), [&](const PlanTensor& other) {
    return other.stored.name == weight && other.parameter && other.parameter->role != Role::vector;
  });
  return of_linear ? &WeightBytes::biases : &WeightBytes::norms;
}

/// As --head has it: made from the matrix as it is stored.
uint64_t new_head_bytes(const PlanTensor& t, const Target& target, ResidentSizes& sizes) {
  EncodeOptions options;
  if (is_dense(t.stored)) options.source_dtype = stored_dtype(t.stored);
  return sizes.bytes(*target.head, options, t.parameter->shape);
}

/// A tied head becomes a matrix of its own beside the table.
uint64_t tied_head_bytes(const PlanModel& model, const Target& target, ResidentSizes& sizes) {
  if (target.head == nullptr || !model.has_tied_head) return 0;
  for (const PlanTensor& t : model.tensors) {
    const bool is_table = t.parameter && t.parameter->role == Role::embedding;
    if (is_table && t.parameter->shape[0] == model.info.vocab_size) return new_head_bytes(t, target, sizes);
  }
  return 0;
}

uint64_t resident_bytes(const PlanTensor& t, const PlannedTensor& planned, const Target& target, ResidentSizes& sizes) {
  if (!t.parameter) return 0;
  if (target.head && t.parameter->role == Role::head) return new_head_bytes(t, target, sizes);
  if (t.parameter->role == Role::vector) return static_cast<uint64_t>(element_count(t.stored.shape)) * sizeof(float);
  const Format* format = becomes_quantized(t, target) ? target.format : nullptr;
  if (target.format == nullptr && !is_dense(t.stored)) format = find_format_or_null(t.stored.format);
  if (format == nullptr) return planned.bytes();
  EncodeOptions options = target.encode;
  if (is_dense(t.stored)) options.source_dtype = stored_dtype(t.stored);
  return sizes.bytes(*format, options, t.parameter->shape);
}

}  // namespace

uint64_t WeightBytes::total() const {
  return linears + embeddings + head + norms + biases + scales + double_quant + tables + other;
}

WeightPlan plan_weights(const PlanModel& model, const PlanOptions& options) {
  Target target = make_target(model, options);
  target.head = head_format(options.head);
  std::vector<Parameter> parameters;
  for (const PlanTensor& t : model.tensors) {
    if (t.parameter) parameters.push_back(*t.parameter);
  }
  check_skip_names(options.skip, parameters);
  WeightPlan plan;
  std::vector<PlannedTensor> files;
  ResidentSizes sizes;
  for (const PlanTensor& t : model.tensors) {
    const PlannedTensor planned = layout_of(t, target);
    if (target.format == nullptr && !is_dense(t.stored)) {
      plan.bytes.*part_of(t, model.tensors) += t.stored.bytes;
    } else if (becomes_quantized(t, target)) {
      for (const TensorDeclaration& piece : planned.pieces) {
        auto part = piece.name == t.stored.name ? &WeightBytes::linears : piece_part(piece.name);
        plan.bytes.*part += static_cast<uint64_t>(element_count(piece.shape)) * dtype_bytes(piece.dtype);
      }
    } else {
      plan.bytes.*part_of(t, model.tensors) += planned.bytes();
    }
    plan.resident_bytes += resident_bytes(t, planned, target, sizes);
    files.push_back(planned);
  }
  plan.resident_bytes += tied_head_bytes(model, target, sizes);
  if (target.format || !model.is_quantized()) plan.file_bytes = weight_files_bytes(files, options.max_shard_size);
  return plan;
}

}  // namespace nibble
