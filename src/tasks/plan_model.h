#pragma once
// What is planned for: the parameters that a configuration implies and the tensors that hold them, known by name, type
// and shape. The model's own family lists them (models/loader.h without a source), so a new family needs nothing here.
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "models/loader.h"
#include "models/model.h"
#include "nibble/plan.h"
#include "tasks/weights_writer.h"

namespace nibble {

struct PlanTensor {
  SourceTensor stored;                 // as the files have it, or would have it
  std::optional<Parameter> parameter;  // nullopt: the model does not use it
};

struct PlanModel {
  std::string name;
  Json config;
  ModelInfo info;
  bool is_gguf = false;
  std::vector<PlanTensor> tensors;  // in the order of the files
  bool has_tied_head = false;       // the output head is the table of tokens

  /// What the Linear layers are stored in; the largest part of them decides.
  std::string format() const;
  bool is_quantized() const;
  int64_t parameters() const;
};

/// @throws Error as plan()
PlanModel open_plan_model(const std::string& model);

struct WeightPlan {
  WeightBytes bytes;
  uint64_t file_bytes = 0, resident_bytes = 0;
};

/// The weights in options.format. @throws Error{unsupported, invalid_argument} as quantize() would.
WeightPlan plan_weights(const PlanModel& model, const PlanOptions& options);

}  // namespace nibble
