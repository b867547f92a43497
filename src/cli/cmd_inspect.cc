#include <fmt/format.h>

#include <map>

#include "cli/commands.h"
#include "cli/print.h"
#include "nibble/inspect.h"

namespace nibble::cli {
namespace {

std::string shape_cell(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

Json to_json(const ModelDescription& d) {
  Json tensors = Json::array();
  for (const TensorInfo& t : d.tensors) {
    Json shape = Json::array();
    for (const int64_t dim : t.shape) shape.push_back(dim);
    tensors.push_back(Json::object({{"name", t.name}, {"dtype", t.dtype}, {"shape", shape}, {"bytes", t.bytes}}));
  }
  return Json::object({{"architecture", d.architecture},
                       {"model_type", d.model_type},
                       {"parameters", d.parameters},
                       {"bytes", d.bytes},
                       {"quantization", d.quantization},
                       {"vocab_size", d.vocab_size},
                       {"context_length", d.context_length},
                       {"layers", d.layers},
                       {"hidden_size", d.hidden_size},
                       {"supported", d.supported},
                       {"tensors", tensors}});
}

void print_summary(const ModelDescription& d) {
  const double bits = 8.0 * static_cast<double>(d.bytes) / static_cast<double>(std::max<int64_t>(d.parameters, 1));
  print_line(fmt::format("path           {}", d.path));
  print_line(fmt::format("architecture   {} ({}{})", d.architecture, d.model_type,
                         d.supported ? "" : "; nibble cannot run it"));
  print_line(fmt::format("parameters     {}", grouped(d.parameters)));
  print_line(fmt::format("weights        {} ({:.2f} bits per weight)", human_bytes(d.bytes), bits));
  print_line(fmt::format("quantization   {}", d.quantization));
  print_line(fmt::format("layers         {}, hidden size {}, vocabulary {}, context {}\n", d.layers, d.hidden_size,
                         grouped(d.vocab_size), grouped(d.context_length)));
  struct Sum {
    int64_t tensors = 0, weights = 0;
    uint64_t bytes = 0;
  };
  std::map<std::string, Sum> sums;
  for (const TensorInfo& t : d.tensors) {
    Sum& sum = sums[t.dtype];
    ++sum.tensors;
    sum.bytes += t.bytes;
    int64_t count = 1;
    for (const int64_t dim : t.shape) count *= dim;
    sum.weights += count;
  }
  std::vector<std::vector<std::string>> rows = {{"stored as", "tensors", "weights", "size", "bits/weight"}};
  for (const auto& [dtype, sum] : sums) {
    const double each = 8.0 * static_cast<double>(sum.bytes) / static_cast<double>(std::max<int64_t>(sum.weights, 1));
    rows.push_back({dtype, grouped(sum.tensors), grouped(sum.weights), human_bytes(sum.bytes), fixed(each, 3)});
  }
  print_table(rows);
}

}  // namespace

int cmd_inspect(const Arguments& arguments) {
  Common common;
  std::string model;
  bool tensors = false;
  Args args("inspect", "What is in a model, from its headers alone.",
            "  nibble inspect smollm2-135m\n  nibble inspect model.gguf --tensors");
  args.positional("MODEL", model, "folder, .gguf file or hub id");
  args.flag("--tensors", tensors, "list every tensor");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  const JsonReport report;
  const ModelDescription d = inspect(model);
  if (common.json) {
    report.print(model, to_json(d));
    return 0;
  }
  print_summary(d);
  if (!tensors) return 0;
  print_line();
  std::vector<std::vector<std::string>> rows = {{"tensor", "dtype", "shape", "bytes"}};
  for (const TensorInfo& t : d.tensors)
    rows.push_back({t.name, t.dtype, shape_cell(t.shape), grouped(static_cast<int64_t>(t.bytes))});
  print_table(rows);
  return 0;
}

}  // namespace nibble::cli
