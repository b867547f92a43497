#include "tasks/merge_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "io/bnb_names.h"
#include "models/registry.h"
#include "models/skip.h"
#include "tasks/merge_aware.h"
#include "tasks/side_files.h"
#include "tasks/untied_head.h"

namespace nibble {
namespace {

bool is_quantized(const ModelFiles& files) {
  for (const SourceTensor& tensor : files.weights->tensors()) {
    if (!is_dense(tensor)) return true;
  }
  return false;
}

/// What can be said before anything is converted; blocks are seen later.
void check_dither(const ModelFiles& files, const MergePlan& plan) {
  if (!plan.format->block_choice) {
    fail(
        ErrorCode::invalid_argument,
        fmt::format("dither: found format {}, expected nf4, fp4 or int4: only a 4-bit base that is merged into its own "
                    "format can be dithered",
                    plan.format->name));
  }
  const bool any = std::any_of(plan.changes.low_rank.begin(), plan.changes.low_rank.end(), [&](const auto& change) {
    const SourceTensor* stored = files.weights->find(change.first);
    return stored && stored->format == plan.format->name && plan.quantized.contains(change.first);
  });
  if (!any) refuse_dither(files, plan);
}

/// Whether the head and the embeddings will no longer be the same.
bool unties(const ModelOutline& outline, const AdapterChanges& changes) {
  if (outline.tied_head.empty()) return false;
  for (const std::string& name : {outline.parameters.front().name, outline.tied_head + ".weight"}) {
    if (changes.low_rank.contains(name) || changes.replaced.contains(name)) return true;
  }
  return false;
}

/// The merge that one of the adapters was trained for.
std::optional<MergeTarget> find_merge_target(const std::vector<std::string>& adapters) {
  for (const std::string& adapter : adapters) {
    if (auto target = read_merge_target(adapter)) return target;
  }
  return std::nullopt;
}

/// Which matrices are quantized.
void choose_quantized(const ModelFiles& files, const std::vector<Parameter>& parameters, MergePlan& plan) {
  const bool keep_dense = is_quantized(files) && !files.is_gguf();  // what its maker kept stays as it is
  for (const Parameter& parameter : parameters) {
    if (parameter.orientation == Orientation::in_out) plan.in_out.insert(parameter.name);
    if (parameter.role != Role::linear && parameter.role != Role::head) continue;
    const SourceTensor* stored = files.weights->find(parameter.name);
    const bool keep = parameter.role == Role::head || (keep_dense && stored && is_dense(*stored));
    if (keep) {
      plan.kept_linears.emplace_back(module_of(parameter.name));
    } else if (!plan.format->dense) {
      plan.quantized.insert(parameter.name);
    }
  }
}

bool is_turned(const SourceTensor& tensor, const MergePlan& plan) {
  return plan.in_out.contains(tensor.name) && is_dense(tensor);
}

}  // namespace

void refuse_dither(const ModelFiles& files, const MergePlan& plan) {
  fail(ErrorCode::invalid_argument,
       fmt::format("dither: {}: no layer that the adapter changes is stored in {} with block {} and stays so",
                   files.path.string(), plan.format->name, block_of(*plan.format, plan.encode)));
}

MergePlan make_merge_plan(ModelFiles& files, const std::vector<std::string>& adapters, const MergeOptions& options) {
  MergePlan plan;
  plan.format = &find_format(options.to);
  plan.encode.double_quant = options.double_quant;
  plan.encode.block = options.block;
  check_encode_options(*plan.format, plan.encode);
  const std::string where = files.path.string();
  plan.dense_dtype = dense_dtype_for(files, *plan.format);
  plan.encoded_dtype = config_dtype(files.config, where).value_or(DType::f32);
  const ModelOutline outline = outline_model(files.config, where, files.weights.get());
  const std::vector<Parameter> parameters = parameters_with_head(outline);
  plan.changes = read_adapter_changes(adapters, parameters);
  if (unties(outline, plan.changes)) untie_head(files, outline);
  plan.trained_for = find_merge_target(adapters);
  plan.dither = options.dither || (plan.trained_for && plan.trained_for->dither);
  choose_quantized(files, parameters, plan);
  if (options.dither) check_dither(files, plan);
  return plan;
}

DType dtype_before(const SourceTensor& tensor, const MergePlan& plan) {
  return is_dense(tensor) ? stored_dtype(tensor) : plan.encoded_dtype;
}

DType dense_dtype(const SourceTensor& tensor, const MergePlan& plan) {
  const DType before = dtype_before(tensor, plan);
  return is_float(before) ? plan.dense_dtype.value_or(before) : before;
}

Shape matrix_shape(const SourceTensor& tensor, const MergePlan& plan) {
  return is_turned(tensor, plan) ? Shape{tensor.shape.at(1), tensor.shape.at(0)} : tensor.shape;
}

PlannedTensor planned_tensor(const SourceTensor& tensor, const MergePlan& plan) {
  PlannedTensor planned;
  planned.parameters = element_count(tensor.shape);
  Shape shape = matrix_shape(tensor, plan);
  if (!plan.quantized.contains(tensor.name)) {
    if (plan.in_out.contains(tensor.name)) std::swap(shape.at(0), shape.at(1));
    planned.pieces.push_back({tensor.name, dense_dtype(tensor, plan), shape});
    return planned;
  }
  const auto parts = std::get<QuantizedTensor>(layout(shape, dtype_before(tensor, plan), *plan.format, plan.encode));
  for (const auto& [name, piece] : stored_pieces(tensor.name, parts)) {
    planned.pieces.push_back({name, piece.dtype, piece.shape});
  }
  return planned;
}

}  // namespace nibble
