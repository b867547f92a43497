// Merging an adapter into its base: which tensors change, in what form each is stored, and whether enough of the change
// survives that.
#include "nibble/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "core/error.h"
#include "io/bnb_names.h"
#include "io/model_files.h"
#include "io/quantization_config.h"
#include "models/registry.h"
#include "models/skip.h"
#include "ops/dora.h"
#include "ops/elementwise.h"
#include "ops/merged_weight.h"
#include "quant/dither.h"
#include "tasks/merge_adapter.h"
#include "tasks/merge_aware.h"
#include "tasks/merge_values.h"
#include "tasks/model_output.h"
#include "tasks/side_files.h"
#include "tasks/weights_writer.h"

namespace nibble {
namespace {

using Names = std::set<std::string, std::less<>>;

/// What becomes of each tensor of the base.
struct MergePlan {
  const Format* format = nullptr;
  EncodeOptions encode;
  AdapterChanges changes;
  std::optional<MergeTarget> trained_for;
  bool dither = false;                    // matrices that are stored in that form already
  Names quantized;                        // stored in `format`, which is not a dense one
  Names in_out;                           // dense files hold these as [in, out]
  std::vector<std::string> kept_linears;  // modules that stay dense though the others are quantized
  std::optional<DType> dense_dtype;       // of what stays dense; nullopt = as it is
  DType encoded_dtype = DType::f32;       // recorded for matrices that are quantized in the base too
};

bool is_quantized(const ModelFiles& files) {
  for (const SourceTensor& tensor : files.weights->tensors()) {
    if (!is_dense(tensor)) return true;
  }
  return false;
}

/// With tied embeddings the output head would change too, which is not what was trained.
void refuse_tied_embeddings(const std::vector<Parameter>& parameters, const AdapterChanges& changes) {
  const std::string& tokens = parameters.front().name;  // the table of tokens comes first, before that of positions
  if (changes.low_rank.contains(tokens) || changes.replaced.contains(tokens)) {
    fail(ErrorCode::unsupported,
         tokens + ": the output head shares these embeddings, so an adapter of one of them cannot be merged");
  }
}

[[noreturn]] void refuse_dither(const ModelFiles& files, const MergePlan& plan) {
  fail(ErrorCode::invalid_argument,
       fmt::format("dither: {}: no layer that the adapter changes is stored in {} with block {} and stays so",
                   files.path.string(), plan.format->name, block_of(*plan.format, plan.encode)));
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

MergePlan make_plan(const ModelFiles& files, const std::string& adapter, const MergeOptions& options) {
  MergePlan plan;
  plan.format = &find_format(options.to);
  plan.encode.double_quant = options.double_quant;
  plan.encode.block = options.block;
  check_encode_options(*plan.format, plan.encode);
  const std::string where = files.path.string();
  plan.dense_dtype = dense_dtype_for(files, *plan.format);
  plan.encoded_dtype = config_dtype(files.config, where).value_or(DType::f32);
  const auto [info, parameters, tied_head] = outline_model(files.config, where, files.weights.get());
  if (!tied_head.empty()) plan.kept_linears.push_back(tied_head);
  plan.changes = read_adapter_changes(adapter, parameters);
  plan.trained_for = read_merge_target(adapter);
  plan.dither = options.dither || (plan.trained_for && plan.trained_for->dither);
  if (!tied_head.empty()) refuse_tied_embeddings(parameters, plan.changes);
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
  if (options.dither) check_dither(files, plan);
  return plan;
}

/// The float type that a matrix has in the base, or had before it was quantized.
DType dtype_before(const SourceTensor& tensor, const MergePlan& plan) {
  return is_dense(tensor) ? stored_dtype(tensor) : plan.encoded_dtype;
}

/// The element type of a tensor that is not quantized in the result.
DType dense_dtype(const SourceTensor& tensor, const MergePlan& plan) {
  const DType before = dtype_before(tensor, plan);
  return is_float(before) ? plan.dense_dtype.value_or(before) : before;
}

bool is_turned(const SourceTensor& tensor, const MergePlan& plan) {
  return plan.in_out.contains(tensor.name) && is_dense(tensor);
}

/// [out, in], as everything is computed.
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

/// Dither lengthens rows, so those of DoRA have the lengths that they have without it.
Tensor dithered_merge(const Weight& base, Lora lora) {
  if (!lora.magnitude.empty()) lora.row_lengths = dora_row_lengths(base, lora);
  return merged_weight(dithered(std::get<QuantizedTensor>(base)), lora);
}

/// Converts one tensor at a time and reports on those that the adapter changes.
class Merger {
 public:
  Merger(const WeightSource& source, const MergePlan& plan, MergeReport& report)
      : source_(source), plan_(plan), report_(report) {}

  NamedTensors convert(const SourceTensor& tensor) {
    const Weight weight = source_weight(tensor);
    const auto lora = plan_.changes.low_rank.find(tensor.name);
    const bool changed = lora != plan_.changes.low_rank.end();
    if (!changed && is_kept(weight, tensor)) return pieces(tensor, weight);
    Tensor values = decode(weight);
    if (plan_.in_out.contains(tensor.name) && std::holds_alternative<Tensor>(weight)) values = values.transposed();
    if (const auto added = plan_.changes.added.find(tensor.name); added != plan_.changes.added.end()) {
      values = add(copy_of(values), added->second, nullptr);
    }
    if (!changed) return pieces(tensor, stored(tensor, values));
    const Tensor merged = merged_weight(values, lora->second);
    const bool dithers = plan_.quantized.contains(tensor.name) && can_dither(weight, *plan_.format, plan_.encode);
    can_dither_ |= dithers;
    const Weight result = stored(tensor, dithers && plan_.dither ? dithered_merge(weight, lora->second) : merged);
    record(tensor, merge_sums(values, merged, result));
    return pieces(tensor, result);
  }

  const MergeSums& total() const { return total_; }
  /// Whether any of the changed matrices could be dithered.
  bool can_dither_any() const { return can_dither_; }

 private:
  Weight source_weight(const SourceTensor& tensor) {
    const auto found = plan_.changes.replaced.find(tensor.name);
    if (found == plan_.changes.replaced.end()) return source_.load(tensor.name);
    report_.replaced.push_back(tensor.name);
    return found->second;
  }

  /// Whether nothing needs to be done.
  bool is_kept(const Weight& weight, const SourceTensor& tensor) const {
    if (const auto* dense = std::get_if<Tensor>(&weight)) return !is_float(dense->dtype);
    EncodeOptions encode = plan_.encode;
    encode.source_dtype = plan_.encoded_dtype;
    return plan_.quantized.contains(tensor.name) &&
           is_stored_so(std::get<QuantizedTensor>(weight), *plan_.format, encode);
  }

  /// values: f32, matrices [out, in]
  Weight stored(const SourceTensor& tensor, const Tensor& values) const {
    if (!plan_.quantized.contains(tensor.name)) return values.cast(dense_dtype(tensor, plan_));
    EncodeOptions options = plan_.encode;
    options.source_dtype = dtype_before(tensor, plan_);
    return encode(values, *plan_.format, options);
  }

  NamedTensors pieces(const SourceTensor& tensor, const Weight& weight) const {
    if (const auto* quantized = std::get_if<QuantizedTensor>(&weight)) return stored_pieces(tensor.name, *quantized);
    const auto& dense = std::get<Tensor>(weight);
    return {{tensor.name, plan_.in_out.contains(tensor.name) ? dense.transposed() : dense}};
  }

  void record(const SourceTensor& tensor, const MergeSums& sums) {
    const bool quantized = plan_.quantized.contains(tensor.name);
    report_.layers.push_back(
        {.name = std::string(module_of(tensor.name)),
         .shape = matrix_shape(tensor, plan_),
         .format = std::string(quantized ? plan_.format->name : dtype_name(dense_dtype(tensor, plan_))),
         .loss = sums.loss()});
    total_.add(sums);
  }

  const WeightSource& source_;
  const MergePlan& plan_;
  MergeReport& report_;
  MergeSums total_;
  bool can_dither_ = false;
};

Json make_config(const ModelFiles& files, const MergePlan& plan) {
  Json config = files.config;
  const QuantizationConfig before = parse_quantization_config(config, files.path.string());
  if (plan.dense_dtype) set_config_dtype(config, *plan.dense_dtype);
  config.erase("quantization_config");
  if (plan.format->dense) return config;
  config.set("quantization_config",
             quantization_config(*plan.format, plan.encode, before.compute_dtype, plan.kept_linears, before.threshold));
  return config;
}

/// What the merge is, in the words in which training recorded its own.
MergeTarget target_of(const ModelFiles& files, const MergePlan& plan) {
  std::vector<std::string_view> bases;
  for (const auto& [name, lora] : plan.changes.low_rank) {
    if (const SourceTensor* stored = files.weights->find(name)) bases.push_back(stored->format);
  }
  return merge_target({*plan.format, plan.encode, plan.dither}, bases);
}

/// Formats in which more of a change survives than in those of so many bits.
struct WiderRow {
  double bits;
  const char* advice;
};
constexpr WiderRow kWider[] = {
    {6, "merge --to bf16 or int8, "}, {10, "merge --to bf16 or fp32, "}, {16, "merge --to fp32, "}};

std::string wider_than(const Format& format) {
  for (const WiderRow& row : kWider) {
    if (format.bits_per_weight <= row.bits) return row.advice;
  }
  return "";
}

/// could_dither: whether that is left to try.
void refuse_destruction(const MergeReport& report, const std::string& adapter, bool could_dither) {
  if (report.total.delta_retained >= kLeastDeltaRetained) return;
  fail(ErrorCode::unsupported,
       fmt::format(
           "{}: merging into {} would keep {:.1f} % of what the adapter changes (its norm is {:.2g} % of that of "
           "the weights; at least {:.0f} % must survive). Keep the adapter beside the model, {}{}or use --force",
           adapter, report.format, 100 * report.total.delta_retained, 100 * report.total.delta_norm_ratio,
           100 * kLeastDeltaRetained, wider_than(find_format(report.format)), could_dither ? "use --dither, " : ""));
}

}  // namespace

MergeReport merge(const std::string& model, const std::string& adapter, const std::string& out,
                  const MergeOptions& options) {
  const ModelFiles files = open_model(model);
  const MergePlan plan = make_plan(files, adapter, options);
  MergeReport report;
  report.output = out;
  report.format = options.to;
  report.trained_for = plan.trained_for;
  report.as_trained = report.trained_for == target_of(files, plan);
  OutputFolder folder = model_output(out, options.overwrite ? Overwrite::yes : Overwrite::no, {files.path, adapter});
  const std::vector<SourceTensor>& tensors = files.weights->tensors();
  std::vector<PlannedTensor> planned;
  for (const SourceTensor& tensor : tensors) {
    planned.push_back(planned_tensor(tensor, plan));
    report.bytes_before += tensor.bytes;
  }
  Merger merger(*files.weights, plan, report);
  report.bytes_after = write_weights(folder, planned, options.max_shard_size, [&](size_t i) {
    if (options.progress) {
      options.progress(
          {.unit = "tensors", .done = static_cast<int64_t>(i + 1), .total = static_cast<int64_t>(tensors.size())});
    }
    return merger.convert(tensors[i]);
  });
  report.total = merger.total().loss();
  report.dithered = plan.dither && merger.can_dither_any();
  if (options.dither && !report.dithered) refuse_dither(files, plan);
  if (!options.force && !report.as_trained) {
    refuse_destruction(report, adapter, merger.can_dither_any() && !plan.dither);
  }
  write_side_files(folder, files, make_config(files, plan));
  folder.commit();
  return report;
}

}  // namespace nibble
