#pragma once
// What becomes of each tensor of the base in a merge.
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "io/model_files.h"
#include "nibble/merge.h"
#include "quant/format.h"
#include "tasks/merge_adapter.h"
#include "tasks/weights_writer.h"

namespace nibble {

struct MergePlan {
  using Names = std::set<std::string, std::less<>>;

  const Format* format = nullptr;
  EncodeOptions encode;
  AdapterChanges changes;
  std::optional<MergeTarget> trained_for;
  bool dither = false;                    // matrices that are stored in that form already
  Names quantized;                        // stored in `format`, which is not a dense one
  Names in_out;                           // dense files hold these as [in, out]
  std::vector<std::string> kept_linears;  // modules that stay dense though the others are quantized
  std::optional<DType> dense_dtype;       // of what stays dense; nullopt = as it is
  DType encoded_dtype = DType::f32;       // recorded for matrices that are quantized in the base too
};

/// Files whose head shares the embeddings' matrix are shown untied from here on when adapters change one of the two.
/// @throws as merge(), for what can be said before anything is converted.
MergePlan make_merge_plan(ModelFiles& files, const std::vector<std::string>& adapters, const MergeOptions& options);

/// The float type that a matrix has in the base, or had before it was quantized.
DType dtype_before(const SourceTensor& tensor, const MergePlan& plan);

/// The element type of a tensor that is not quantized in the result.
DType dense_dtype(const SourceTensor& tensor, const MergePlan& plan);

/// [out, in], as everything is computed.
Shape matrix_shape(const SourceTensor& tensor, const MergePlan& plan);

PlannedTensor planned_tensor(const SourceTensor& tensor, const MergePlan& plan);

/// No matrix can be dithered though that was asked for.
[[noreturn]] void refuse_dither(const ModelFiles& files, const MergePlan& plan);

}  // namespace nibble
