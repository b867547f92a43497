#pragma once
// What a PEFT adapter folder changes of a model, by the names of the model's tensors.
#include <map>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "models/loader.h"
#include "ops/lora.h"

namespace nibble {

struct AdapterChanges {
  std::map<std::string, Lora, std::less<>> low_rank;    // added to the matrix of this name, [out, in]
  std::map<std::string, Tensor, std::less<>> added;     // to the vector of this name
  std::map<std::string, Tensor, std::less<>> replaced;  // instead of the tensor of this name, before anything is added
};

/// Reads an adapter and finds the parameters that it means, with or without the prefix ("bert.", "transformer.") that
/// one of the two may lack.
/// @throws Error{format} listing up to ten layers that the model does not have or that have another shape there,
///         Error{unsupported} for kinds of adapters that cannot be merged.
AdapterChanges read_adapter_changes(const std::string& folder, const std::vector<Parameter>& parameters);

}  // namespace nibble
