#pragma once
// The page of `nibble finetune --report`.
#include <string>
#include <vector>

#include "core/json.h"
#include "nibble/finetune.h"
#include "nibble/report.h"

namespace nibble::cli {

struct FinetuneRun {
  const std::string& model;
  const FinetuneOptions& options;
  const FinetuneReport& report;
  std::vector<FinetuneStep> steps;  // of log.jsonl, those before a --resume too
};

/// Plots and tables; without the JSON.
ReportPage page_of(const FinetuneRun& run);

/// What the run was asked for.
Json settings_json(const FinetuneOptions& options);

}  // namespace nibble::cli
