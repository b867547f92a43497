// Merging adapters into their base: what each tensor becomes, and whether enough of the change survives that.
#include "nibble/merge.h"

#include <fmt/format.h>

#include "core/error.h"
#include "io/bnb_names.h"
#include "io/model_files.h"
#include "io/quantization_config.h"
#include "models/skip.h"
#include "ops/dora.h"
#include "ops/elementwise.h"
#include "ops/merged_weight.h"
#include "quant/dither.h"
#include "tasks/merge_aware.h"
#include "tasks/merge_plan.h"
#include "tasks/merge_values.h"
#include "tasks/model_output.h"
#include "tasks/side_files.h"
#include "tasks/weights_writer.h"

namespace nibble {
namespace {

/// values: f32 [out, in]
Tensor with_changes(Tensor values, const std::vector<Lora>& changes) {
  for (const Lora& lora : changes) values = merged_weight(values, lora);
  return values;
}

/// Dither lengthens rows, so those of DoRA, which comes first, have the lengths that they have without it.
Tensor dithered_merge(const Weight& base, std::vector<Lora> changes) {
  Lora& first = changes.front();
  if (!first.magnitude.empty()) first.row_lengths = dora_row_lengths(base, first);
  return with_changes(dithered(std::get<QuantizedTensor>(base)), changes);
}

/// Converts one tensor at a time and reports on those that the adapter changes.
class Merger {
 public:
  Merger(const WeightSource& source, const MergePlan& plan, MergeReport& report)
      : source_(source), plan_(plan), report_(report) {}

  NamedTensors convert(const SourceTensor& tensor) {
    const Weight weight = source_weight(tensor);
    const auto low_rank = plan_.changes.low_rank.find(tensor.name);
    const bool changed = low_rank != plan_.changes.low_rank.end();
    if (!changed && is_kept(weight, tensor)) return pieces(tensor, weight);
    Tensor values = decode(weight);
    if (plan_.in_out.contains(tensor.name) && std::holds_alternative<Tensor>(weight)) values = values.transposed();
    if (const auto added = plan_.changes.added.find(tensor.name); added != plan_.changes.added.end()) {
      values = add(copy_of(values), added->second, nullptr);
    }
    if (!changed) return pieces(tensor, stored(tensor, values));
    const Tensor merged = with_changes(values, low_rank->second);
    const bool dithers = plan_.quantized.contains(tensor.name) && can_dither(weight, *plan_.format, plan_.encode);
    can_dither_ |= dithers;
    const Weight result = stored(tensor, dithers && plan_.dither ? dithered_merge(weight, low_rank->second) : merged);
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
  for (const auto& [name, changes] : plan.changes.low_rank) {
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
std::string refusal(const MergeReport& report, const std::string& adapters, bool could_dither) {
  return fmt::format(
      "{}: merging into {} would keep {:.1f} % of what the adapter changes (its norm is {:.2g} % of that of "
      "the weights; at least {:.0f} % must survive). Keep the adapter beside the model, {}{}or use --force",
      adapters, report.format, 100 * report.total.delta_retained, 100 * report.total.delta_norm_ratio,
      100 * kLeastDeltaRetained, wider_than(find_format(report.format)), could_dither ? "use --dither, " : "");
}

/// All that is read, which the output may not take the place of.
std::vector<std::filesystem::path> inputs_of(const ModelFiles& files, const std::vector<std::string>& adapters) {
  std::vector<std::filesystem::path> inputs = {files.path};
  inputs.insert(inputs.end(), adapters.begin(), adapters.end());
  return inputs;
}

uint64_t bytes_of(const WeightSource& source) {
  uint64_t bytes = 0;
  for (const SourceTensor& tensor : source.tensors()) bytes += tensor.bytes;
  return bytes;
}

}  // namespace

DestructiveMerge::DestructiveMerge(const std::string& message, MergeReport report)
    : Error(ErrorCode::unsupported, message), report_(std::move(report)) {}

MergeReport merge(const std::string& model, const std::string& adapter, const std::string& out,
                  const MergeOptions& options) {
  return merge(model, std::vector<std::string>{adapter}, out, options);
}

MergeReport merge(const std::string& model, const std::vector<std::string>& adapters, const std::string& out,
                  const MergeOptions& options) {
  ModelFiles files = open_model(model);
  MergeReport report = {.output = out, .format = options.to, .bytes_before = bytes_of(*files.weights)};
  const MergePlan plan = make_merge_plan(files, adapters, options);
  report.trained_for = plan.trained_for;
  report.as_trained = adapters.size() == 1 && report.trained_for == target_of(files, plan);
  OutputFolder folder =
      model_output(out, options.overwrite ? Overwrite::yes : Overwrite::no, inputs_of(files, adapters));
  const std::vector<SourceTensor>& tensors = files.weights->tensors();
  std::vector<PlannedTensor> planned;
  for (const SourceTensor& tensor : tensors) planned.push_back(planned_tensor(tensor, plan));
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
  if (!options.force && !report.as_trained && report.total.delta_retained < kLeastDeltaRetained) {
    const bool could_dither = merger.can_dither_any() && !plan.dither;
    const std::string message = refusal(report, fmt::format("{}", fmt::join(adapters, ", ")), could_dither);
    throw DestructiveMerge(message, std::move(report));
  }
  write_side_files(folder, files, make_config(files, plan));
  folder.commit();
  return report;
}

}  // namespace nibble
