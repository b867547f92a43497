#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/print.h"
#include "nibble/formats.h"

namespace nibble::cli {
namespace {

template <class T>
Json list(const std::vector<T>& values) {
  Json out = Json::array();
  for (const T& value : values) out.push_back(value);
  return out;
}

Json formats_json() {
  Json rows = Json::array();
  for (const FormatInfo& f : list_formats()) {
    rows.push_back(Json::object({{"name", f.name},
                                 {"bits_per_weight", f.bits_per_weight},
                                 {"bits_per_weight_double_quant",
                                  f.bits_per_weight_double_quant > 0 ? Json(f.bits_per_weight_double_quant) : Json()},
                                 {"block", f.block > 0 ? Json(f.block) : Json()},
                                 {"readable_by", f.readable_by}}));
  }
  return Json::object({{"formats", rows}, {"gguf_formats", list(list_gguf_formats())}});
}

void print_formats() {
  std::vector<std::vector<std::string>> rows = {{"format", "bits/weight", "double-quantized", "block", "read by"}};
  for (const FormatInfo& f : list_formats()) {
    rows.push_back({f.name, fmt::format("{:g}", f.bits_per_weight),
                    f.bits_per_weight_double_quant > 0 ? fixed(f.bits_per_weight_double_quant, 3) : "-",
                    f.block > 0 ? std::to_string(f.block) : "-", f.readable_by});
  }
  print_table(rows);
  std::string gguf;
  for (const std::string& name : list_gguf_formats()) gguf += (gguf.empty() ? "" : " ") + name;
  print_line("\nint8: one scale per row and per token, outlier columns in full precision (LLM.int8()).");
  print_line("read from GGUF files: " + gguf);
}

Json example_json(const AffineExample& e) {
  return Json::object({{"values", list(e.values)},
                       {"scale", e.scale},
                       {"min", e.min},
                       {"codes", list(e.codes)},
                       {"reconstruction", list(e.reconstruction)},
                       {"torch_zero_point", e.torch_zero_point},
                       {"torch_codes", list(e.torch_codes)},
                       {"torch_reconstruction", list(e.torch_reconstruction)}});
}

void print_example(const AffineExample& e) {
  print_line("Affine INT8: code = round((x - min) / range * 255), back: code * scale + min");
  print_line(fmt::format("min {:g}, range {:g}, scale {:.7f}; torch rounds the offset to zero point {}\n", e.min,
                         e.scale * 255, e.scale, e.torch_zero_point));
  std::vector<std::vector<std::string>> rows = {{"x", "code", "back", "error", "torch code", "torch back"}};
  for (size_t i = 0; i < e.values.size(); ++i) {
    rows.push_back({fmt::format("{:g}", e.values[i]), std::to_string(e.codes[i]), fixed(e.reconstruction[i], 4),
                    fixed(std::abs(e.reconstruction[i] - e.values[i]), 4), std::to_string(e.torch_codes[i]),
                    fixed(e.torch_reconstruction[i], 4)});
  }
  print_table(rows);
  print_line(fmt::format("\ncodes: {}", fmt::join(e.codes, " ")));
  print_line(
      "The row often printed for this example, 123 209 217 76 119 93 0 81 99, cannot be right: it puts 0.68 (81) "
      "above\n"
      "1.12 (76), and the largest value at 217 instead of 255, which no increasing map does.");
}

}  // namespace

int cmd_formats(const Arguments& arguments) {
  Common common;
  bool example = false;
  Args args("formats", "The formats that weights can be stored in.",
            "  nibble formats\n  nibble formats --json\n  nibble formats --example");
  args.flag("--example", example, "affine INT8 on nine numbers, step by step");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  const JsonReport report;
  if (common.json) {
    report.print("", example ? example_json(affine_int8_example()) : formats_json());
  } else if (example) {
    print_example(affine_int8_example());
  } else {
    print_formats();
  }
  return 0;
}

}  // namespace nibble::cli
