#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/print.h"
#include "nibble/quantize.h"

namespace nibble::cli {

int cmd_dequantize(const Arguments& arguments) {
  Common common;
  std::string model, out, dtype = "fp32", max_shard_size;
  bool overwrite = false;
  Args args("dequantize", "Writes the dense model that a quantized one stands for.",
            "  nibble dequantize smollm2-nf4 -o smollm2-dense --dtype bf16\n"
            "  nibble dequantize model.gguf -o model-hf --dtype fp16");
  args.positional("MODEL", model, "folder, .gguf file or hub id");
  args.option("-o,--out", out, "FOLDER", "where to write", Args::Need::required);
  args.option("--dtype", dtype, "DTYPE", "fp32 (default), fp16 or bf16");
  args.option("--max-shard-size", max_shard_size, "SIZE", "per weights file; default 5GB");
  args.flag("--overwrite", overwrite, "replace an existing output, once the new one is complete");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  const JsonReport json;
  DequantizeOptions options;
  options.dtype = parse_dtype(dtype);
  if (!max_shard_size.empty()) options.max_shard_size = parse_size(max_shard_size, "--max-shard-size");
  options.overwrite = overwrite;
  options.progress = progress_bar(common);
  const DequantizeReport report = dequantize(model, out, options);
  if (common.json) {
    json.print(model, Json::object({{"output", report.output},
                                    {"bytes_before", report.bytes_before},
                                    {"bytes_after", report.bytes_after}}));
  } else {
    print_line(fmt::format("wrote {} ({}, before: {})", out, human_bytes(report.bytes_after),
                           human_bytes(report.bytes_before)));
  }
  return 0;
}

}  // namespace nibble::cli
