#include <fmt/format.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/print.h"
#include "core/error.h"
#include "nibble/merge.h"
#include "tasks/merge_aware.h"

namespace nibble::cli {
namespace {

Json loss_members(const MergeLoss& loss) {
  return Json::object({{"delta_norm_ratio", loss.delta_norm_ratio},
                       {"delta_retained", loss.delta_retained},
                       {"rounding_ratio", loss.rounding_ratio}});
}

Json layer_json(const MergedLayer& layer) {
  Json shape = Json::array();
  for (const int64_t dim : layer.shape) shape.push_back(dim);
  Json json = Json::object({{"name", layer.name}, {"shape", shape}, {"format", layer.format}});
  const Json loss = loss_members(layer.loss);
  for (const auto& [key, value] : loss.as_object("loss")) json.set(key, value);
  return json;
}

Json report_json(const MergeReport& report) {
  Json layers = Json::array(), replaced = Json::array();
  for (const MergedLayer& layer : report.layers) layers.push_back(layer_json(layer));
  for (const std::string& name : report.replaced) replaced.push_back(name);
  return Json::object({{"output", report.output},
                       {"format", report.format},
                       {"bytes_before", report.bytes_before},
                       {"bytes_after", report.bytes_after},
                       {"total", loss_members(report.total)},
                       {"trained_for", report.trained_for ? merge_target_json(*report.trained_for) : Json()},
                       {"as_trained", report.as_trained},
                       {"dithered", report.dithered},
                       {"layers", layers},
                       {"replaced", replaced}});
}

std::vector<std::string> table_row(const std::string& name, const std::string& format, const MergeLoss& loss) {
  return {name, format, fmt::format("{:.3f} %", 100 * loss.delta_norm_ratio),
          fmt::format("{:.1f} %", 100 * loss.delta_retained), fmt::format("{:.1f} %", 100 * loss.rounding_ratio)};
}

/// The layers that lost most; --json lists all.
void print_layers(const MergeReport& report) {
  constexpr size_t kShown = 5;
  std::vector<MergedLayer> layers = report.layers;
  const auto less_retained = [](const MergedLayer& a, const MergedLayer& b) {
    return a.loss.delta_retained < b.loss.delta_retained;
  };
  std::stable_sort(layers.begin(), layers.end(), less_retained);
  std::vector<std::vector<std::string>> rows = {{"layer", "format", "change", "retained", "noise"}};
  for (size_t i = 0; i < layers.size() && i < kShown; ++i) {
    rows.push_back(table_row(layers[i].name, layers[i].format, layers[i].loss));
  }
  if (layers.size() > kShown) rows.push_back({fmt::format("... {} more", layers.size() - kShown), "", "", "", ""});
  rows.push_back(table_row("all", report.format, report.total));
  print_table(rows);
}

/// Whether this is the merge that the adapter was trained for.
void print_training(const MergeReport& report) {
  if (!report.trained_for) return;
  if (report.as_trained) return print_line("the adapter was trained for this merge: the result is what training saw");
  const MergeTarget& target = *report.trained_for;
  note(fmt::format(
      "nibble: warning: the adapter was trained to be merged into {}{}{}{}, over a base in {}; this is another "
      "merge",
      printable(target.format, 50), target.block ? fmt::format(" with block {}", target.block) : "",
      target.double_quant ? " and double quantization" : "", target.dither ? " (dithered)" : "",
      printable(target.base, 50)));
}

/// A refusal that goes by what is left shows that layer by layer, as a success does.
MergeReport merge_or_refuse(const std::string& model, const std::vector<std::string>& adapters, const std::string& out,
                            const MergeOptions& options, const Common& common, const JsonReport& json) {
  try {
    return merge(model, adapters, out, options);
  } catch (const DestructiveMerge& refusal) {
    if (!common.json) print_layers(refusal.report());
    throw ReportedError(refusal, json.object(model, report_json(refusal.report())));
  }
}

}  // namespace

int cmd_merge(const Arguments& arguments) {
  Common common;
  MergeOptions options;
  std::string model, out, max_shard_size;
  std::vector<std::string> adapters;
  Args args("merge", "Writes one model from a base and LoRA or DoRA adapters, and says how much of the change is left.",
            "  nibble merge smollm2-135m --adapter my-adapter -o merged\n"
            "  nibble merge smollm2-nf4 --adapter my-adapter -o merged-int8 --to int8");
  args.positional("MODEL", model, "the base: folder, .gguf file or hub id");
  args.repeated("--adapter", adapters, "DIR", "folder with adapter_config.json; given several times, changes add up",
                Args::Need::required);
  args.option("-o,--out", out, "FOLDER", "where to write", Args::Need::required);
  args.option("--to", options.to, "FORMAT", "bf16 (default), fp16, fp32, int8, nf4, fp4, int4, int8-dynamic");
  args.flag("--double-quant", options.double_quant, "4-bit formats: quantize the scales too");
  args.option("--block", options.block, "4-bit formats: weights per scale; default 64");
  args.flag("--dither", options.dither,
            "a 4-bit base into its own format: let small changes survive, see docs/merge.md");
  args.flag("--force", options.force, "write the result even when rounding destroys most of the change");
  args.option("--max-shard-size", max_shard_size, "SIZE", "per weights file; default 5GB");
  args.flag("--overwrite", options.overwrite, "replace an existing output, once the new one is complete");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  const JsonReport json;
  if (!max_shard_size.empty()) options.max_shard_size = parse_size(max_shard_size, "--max-shard-size");
  options.progress = progress_bar(common);
  const MergeReport report = merge_or_refuse(model, adapters, out, options, common, json);
  if (common.json) {
    json.print(model, report_json(report));
    return 0;
  }
  print_line(fmt::format("merged {} into {} ({} layers, {} replaced tensors)", fmt::join(adapters, ", "), model,
                         report.layers.size(), report.replaced.size()));
  print_layers(report);
  print_training(report);
  print_line(fmt::format("wrote {} ({})", report.output, human_bytes(report.bytes_after)));
  return 0;
}

}  // namespace nibble::cli
