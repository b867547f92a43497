#include <fmt/format.h>

#include <cmath>
#include <map>

#include "cli/commands.h"
#include "cli/print.h"
#include "core/error.h"
#include "nibble/quantize.h"
#include "quant/format.h"

namespace nibble::cli {
namespace {

struct Preset {
  const char* name;
  const char* format;
  bool double_quant;
  DType compute_dtype;
};

constexpr Preset kPresets[] = {{"inference", "nf4", true, DType::bf16},
                               {"finetune", "nf4", false, DType::bf16},
                               {"accuracy", "int8", false, DType::bf16},
                               {"edge", "int4", true, DType::f16}};

/// The flags as given; what was not given stays with the recipe, the preset or the default.
struct Given {
  std::optional<std::string> preset, recipe, format, granularity, compute_dtype, max_shard_size;
  std::optional<int64_t> block;
  std::optional<double> int8_threshold;
  bool double_quant = false;
  std::vector<std::string> skip;
};

QuantizeOptions preset_options(const std::string& name) {
  QuantizeOptions options;
  std::string known;
  for (const Preset& preset : kPresets) {
    if (name == preset.name) {
      options.format = preset.format;
      options.double_quant = preset.double_quant;
      options.compute_dtype = preset.compute_dtype;
      return options;
    }
    known += (known.empty() ? "" : ", ") + std::string(preset.name);
  }
  fail(ErrorCode::invalid_argument, "--preset: unknown '" + name + "', expected one of " + known);
}

/// A preset and a recipe may say more than their format needs; what is typed is meant.
void check_meaning(const Given& given, const std::string& format) {
  const bool is_4bit = find_format(format).bits_per_weight_double_quant > 0;
  if (given.compute_dtype && !is_4bit) {
    fail(ErrorCode::invalid_argument, "--compute-dtype has no meaning for format '" + format +
                                          "': only the 4-bit formats are computed in a dtype that can be chosen");
  }
  if (given.int8_threshold && format != "int8") {
    fail(ErrorCode::invalid_argument, "--int8-threshold has no meaning for format '" + format +
                                          "': only int8 takes large activations out of its integer products");
  }
}

QuantizeOptions resolve(const Given& given) {
  QuantizeOptions options = given.preset ? preset_options(*given.preset) : QuantizeOptions{};
  if (given.recipe) options = quantize_options_from_file(*given.recipe, options);
  if (given.format && given.preset && *given.format != options.format) {
    // A format given beside a preset replaces its format; double quantization goes with the format it was meant for.
    options.double_quant =
        options.double_quant && (*given.format == "nf4" || *given.format == "fp4" || *given.format == "int4");
  }
  if (given.format) options.format = *given.format;
  if (given.granularity) options.granularity = *given.granularity;
  if (given.compute_dtype) options.compute_dtype = parse_dtype(*given.compute_dtype);
  if (given.max_shard_size) options.max_shard_size = parse_size(*given.max_shard_size, "--max-shard-size");
  if (given.block) options.block = *given.block;
  if (given.int8_threshold) options.int8_threshold = static_cast<float>(*given.int8_threshold);
  if (given.double_quant) options.double_quant = true;
  if (!given.skip.empty()) options.skip = given.skip;
  check_meaning(given, options.format);
  return options;
}

Json tensor_json(const TensorReport& t) {
  Json shape = Json::array();
  for (const int64_t dim : t.shape) shape.push_back(dim);
  return Json::object({{"name", t.name},
                       {"shape", shape},
                       {"format", t.format},
                       {"relative_error", t.relative_error},
                       {"sqnr_db", t.sqnr_db},
                       {"max_abs_error", t.max_abs_error},
                       {"nan_count", t.nan_count},
                       {"inf_count", t.inf_count},
                       {"first_nonfinite", t.first_nonfinite >= 0 ? Json(t.first_nonfinite) : Json()},
                       {"bytes_before", t.bytes_before},
                       {"bytes_after", t.bytes_after}});
}

Json report_json(const QuantizeReport& r) {
  Json tensors = Json::array(), kept = Json::array(), skipped = Json::array();
  for (const TensorReport& t : r.tensors) tensors.push_back(tensor_json(t));
  for (const TensorReport& t : r.kept) kept.push_back(tensor_json(t));
  for (const std::string& name : r.skipped) skipped.push_back(name);
  return Json::object({{"output", r.output},
                       {"format", r.format},
                       {"bytes_before", r.bytes_before},
                       {"bytes_after", r.bytes_after},
                       {"linear_bits_per_weight", r.linear_bits_per_weight},
                       {"tensors", tensors},
                       {"kept", kept},
                       {"skipped", skipped}});
}

std::string sqnr_text(double error) {
  if (!std::isfinite(error)) return "";
  return error > 0 ? fmt::format("{:.1f} dB", -20 * std::log10(error)) : "exact";
}

/// One line of the summary: all tensors that ended up in the same format.
std::vector<std::string> summary_row(const std::string& format, const std::vector<const TensorReport*>& tensors) {
  uint64_t before = 0, after = 0;
  double weights = 0, noise = 0, layers = 0;
  for (const TensorReport* t : tensors) {
    before += t->bytes_before;
    after += t->bytes_after;
    double count = 1;
    for (const int64_t dim : t->shape) count *= static_cast<double>(dim);
    weights += count;
    noise += t->relative_error * t->relative_error;
    layers += 1;
  }
  const double error = std::sqrt(noise / layers);
  return {format,
          std::to_string(tensors.size()),
          human_bytes(before),
          human_bytes(after),
          fixed(8.0 * static_cast<double>(after) / weights, 3),
          std::isfinite(error) ? fmt::format("{:.2f} %", 100 * error) : "not finite",
          sqnr_text(error)};
}

void print_report(const QuantizeReport& r) {
  std::map<std::string, std::vector<const TensorReport*>> groups;
  for (const auto* list : {&r.tensors, &r.kept}) {
    for (const TensorReport& t : *list) groups[t.format].push_back(&t);
  }
  std::vector<std::vector<std::string>> rows = {
      {"format", "tensors", "before", "after", "bits/weight", "relative error", "SQNR"}};
  for (const auto& [format, tensors] : groups) rows.push_back(summary_row(format, tensors));
  print_table(rows);
  const bool bitsandbytes = r.format == "nf4" || r.format == "fp4" || r.format == "int8";
  print_line(fmt::format("wrote {} ({}{})", r.output, human_bytes(r.bytes_after),
                         bitsandbytes ? ", loads in transformers with bitsandbytes" : ""));
}

void warn_about_values(const QuantizeReport& r) {
  for (const auto* list : {&r.tensors, &r.kept}) {
    for (const TensorReport& t : *list) {
      if (t.first_nonfinite < 0) continue;
      note(fmt::format("nibble: warning: {}: {} NaN and {} infinite values, the first at index {}", t.name, t.nan_count,
                       t.inf_count, t.first_nonfinite));
    }
  }
}

void declare(Args& args, Given& given) {
  args.option("--format", given.format, "FORMAT", "nf4 (default), fp4, int4, int8, int8-dynamic, fp32, fp16, bf16");
  args.flag("--double-quant", given.double_quant, "4-bit formats: quantize the scales too");
  args.option("--block", given.block, "4-bit formats: weights per scale, 32 to 4096; default 64");
  args.option("--granularity", given.granularity, "channel|tensor", "int8-dynamic: one scale per row, or one in all");
  args.option("--compute-dtype", given.compute_dtype, "DTYPE", "4-bit formats: fp32, bf16 or fp16, for the reader");
  args.option("--int8-threshold", given.int8_threshold, "int8: activations from here on stay in full precision; 6");
  args.list("--skip", given.skip, "NAME...", "layers to keep: full name, dotted prefix or suffix");
  args.option("--preset", given.preset, "NAME", "inference, finetune, accuracy or edge");
  args.option("--recipe", given.recipe, "FILE", "JSON file with these options; flags win");
  args.option("--max-shard-size", given.max_shard_size, "SIZE", "per weights file; default 5GB");
}

}  // namespace

int cmd_quantize(const Arguments& arguments) {
  Common common;
  Given given;
  std::string model, out;
  bool overwrite = false;
  Args args("quantize", "Writes a quantized copy of a model, and says what each layer lost.",
            "  nibble quantize smollm2-135m -o smollm2-nf4 --format nf4 --double-quant\n"
            "  nibble quantize model.gguf -o model-int8 --format int8\n"
            "  nibble quantize big -o big-nf4 --preset inference --skip down_proj --max-shard-size 2GB");
  args.positional("MODEL", model, "folder, .gguf file or hub id");
  args.option("-o,--out", out, "FOLDER", "where to write", Args::Need::required);
  declare(args, given);
  args.flag("--overwrite", overwrite, "replace an existing output, once the new one is complete");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  const JsonReport json;
  QuantizeOptions options = resolve(given);
  options.overwrite = overwrite;
  options.progress = progress_bar(common);
  const QuantizeReport report = quantize(model, out, options);
  warn_about_values(report);
  if (common.json) {
    json.print(model, report_json(report));
    return 0;
  }
  print_line(fmt::format("quantized {} ({}, {:.1f} M parameters) to {}{}", model, report.architecture,
                         static_cast<double>(report.parameters) / 1e6, report.format,
                         options.double_quant ? ", double quantization" : ""));
  print_report(report);
  print_line(fmt::format("next: nibble evaluate {} --reference {} --text FILE", out, model));
  return 0;
}

}  // namespace nibble::cli
