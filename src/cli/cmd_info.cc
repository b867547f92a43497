#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/print.h"
#include "nibble/system.h"
#include "nibble/version.h"

namespace nibble::cli {

int cmd_info(const Arguments& arguments) {
  Common common;
  bool measure = false;
  Args args("info", "What this machine offers.", "  nibble info\n  nibble info --measure --json");
  args.flag("--measure", measure, "measure how fast memory is read (about a second)");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  const JsonReport report;
  const SystemInfo info = system_info(measure ? MeasureBandwidth::yes : MeasureBandwidth::no);
  std::string available;
  Json available_json = Json::array();
  for (const std::string& isa : info.isa_available) {
    available += (available.empty() ? "" : ", ") + isa;
    available_json.push_back(isa);
  }
  if (common.json) {
    Json out = Json::object({{"version", version()},
                             {"isa", info.isa},
                             {"isa_available", available_json},
                             {"cores", info.cores},
                             {"memory_bytes", info.memory_bytes}});
    if (measure) out.set("dram_bytes_per_second", info.dram_bytes_per_second);
    report.print("", out);
    return 0;
  }
  print_line(fmt::format("nibble            {}", version()));
  print_line(fmt::format("instruction sets  {} (available: {}; NIBBLE_ISA chooses)", info.isa, available));
  print_line(fmt::format("cores             {}", info.cores));
  print_line(fmt::format("memory            {}", human_bytes(info.memory_bytes)));
  if (measure) print_line(fmt::format("memory read       {:.1f} GB/s", info.dram_bytes_per_second / 1e9));
  return 0;
}

}  // namespace nibble::cli
