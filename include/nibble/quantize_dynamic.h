#pragma once
#include <string>
#include <vector>

#include "nibble/classify.h"
#include "nibble/dtype.h"
#include "nibble/model.h"

namespace nibble {

struct DynamicOptions {
  std::string granularity = "channel";     ///< one weight scale per output row, or per "tensor" (torch's default)
  std::string activation_range = "token";  ///< one range per token, or per "tensor" (all of a call, as torch)
  bool reduce_range = false;               ///< 127 activation steps, as torch on x86, instead of 255
};

/// The model with its Linear layers quantized, the classifier or output head among them (one that shares the
/// embedding's weights stays): i8 = 8-bit weights and activations quantized on the fly, f16 = 16-bit weights.
/// The weights are read again from where the model came from; the model itself does not change.
///
///     auto quantized = quantize_dynamic(model, {"Linear"}, DType::i8);
///
/// @throws Error{invalid_argument} for other modules or types, Error{unsupported} for a model that is quantized
/// already.
SequenceClassifier quantize_dynamic(const SequenceClassifier& model, const std::vector<std::string>& modules,
                                    DType dtype = DType::i8, const DynamicOptions& options = {});
CausalLM quantize_dynamic(const CausalLM& model, const std::vector<std::string>& modules, DType dtype = DType::i8,
                          const DynamicOptions& options = {});

}  // namespace nibble
