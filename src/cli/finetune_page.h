#pragma once
// The page of `nibble finetune --report`.
#include <string>
#include <vector>

#include "nibble/finetune.h"
#include "nibble/report.h"

namespace nibble::cli {

struct FinetuneRun {
  const std::string& model;
  const FinetuneReport& report;
  std::vector<FinetuneStep> steps;  // of log.jsonl, those before a --resume too
};

/// Plots and tables; without the JSON.
ReportPage page_of(const FinetuneRun& run);

}  // namespace nibble::cli
