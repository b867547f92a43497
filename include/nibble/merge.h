#pragma once
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "nibble/error.h"
#include "nibble/merge_target.h"
#include "nibble/progress.h"

namespace nibble {

struct MergeOptions {
  std::string to = "bf16";  ///< of the merged model: bf16, fp16, fp32, int8, nf4, ... (any format that can be written)
  bool double_quant = false;  ///< 4-bit formats: quantize the scales too
  int64_t block = 0;          ///< 4-bit formats: weights per scale; 0 = 64
  /// A base in the 4-bit format and block of the result: before the change is added, each weight is put somewhere into
  /// the cell that is rounded to it, as the original may have lain, so that of a small change the mean survives.
  /// Without a change the base comes out as it was. Always done when the adapter was trained for it.
  bool dither = false;
  bool force = false;  ///< write the result even when most of what the adapter learned is rounded away
  uint64_t max_shard_size = 5'000'000'000;
  bool overwrite = false;
  ProgressFn progress = {};
};

/// What became of the change that an adapter makes to a matrix: delta = merged - base, before anything is rounded.
struct MergeLoss {
  double delta_norm_ratio = 0;  ///< norm(delta) / norm(base)
  double delta_retained = 1;    ///< (stored - base) . delta / norm(delta)^2: 1 = all of it is in the file, 0 = nothing
  double rounding_ratio = 0;    ///< norm(stored - merged) / norm(delta): the noise that storing adds
};

struct MergedLayer {
  std::string name = {};  ///< of the module
  std::vector<int64_t> shape = {};
  std::string format = {};  ///< in which it is stored
  MergeLoss loss = {};
};

struct MergeReport {
  std::string output = {}, format = {};
  std::vector<MergedLayer> layers = {};    ///< those that the adapter changes by a low-rank product
  std::vector<std::string> replaced = {};  ///< tensors that it brings whole
  MergeLoss total = {};                    ///< of all layers together
  uint64_t bytes_before = 0, bytes_after = 0;
  std::optional<MergeTarget> trained_for = {};  ///< what the adapter was trained for, if for any merge
  bool dithered = false;                        ///< see MergeOptions
  bool as_trained = false;                      ///< this merge is that one: the result is what training saw
};

/// A result that keeps less than this of the change is refused, unless it is forced or what the adapter was trained
/// for.
inline constexpr double kLeastDeltaRetained = 0.5;

/// The refusal of a merge that would keep too little: what it would have been is in its report.
class DestructiveMerge : public Error {
 public:
  DestructiveMerge(const std::string& message, MergeReport report);
  const MergeReport& report() const { return report_; }

 private:
  MergeReport report_;
};

/// Writes one model from a base (a folder, dense or quantized, or a GGUF file) and a PEFT adapter folder, LoRA or DoRA:
/// base + scaling * B A, computed in f32 from the weights that the base stores and rounded once. At most three tensors
/// are in memory: one is read, one converted, one written. A head that shares the embeddings' matrix gets its own when
/// the adapter changes one of the two.
/// @throws Error{format} listing up to ten mismatches when the adapter was made for another model, DestructiveMerge
///         (unsupported) when less than kLeastDeltaRetained survives, Error{unsupported} when the adapter uses what is
///         not known, Error{invalid_argument} when `dither` is set and no matrix can be, Error{exists} when `out`
///         exists and overwrite is not set. Nothing is written unless all is.
MergeReport merge(const std::string& model, const std::string& adapter, const std::string& out,
                  const MergeOptions& options = {});

/// The same with several adapters, whose changes add up in this order; trained_for is that of the first that has any.
/// @throws Error{format} also when two of them bring the same tensor whole, and for DoRA of a layer that an adapter
///         before it changes.
MergeReport merge(const std::string& model, const std::vector<std::string>& adapters, const std::string& out,
                  const MergeOptions& options = {});
inline MergeReport merge(const std::string& model, std::initializer_list<std::string> adapters, const std::string& out,
                         const MergeOptions& options = {}) {
  return merge(model, std::vector<std::string>(adapters), out, options);
}

}  // namespace nibble
