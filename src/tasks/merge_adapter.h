#pragma once
// What PEFT adapter folders change of a model, by the names of the model's tensors.
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "models/loader.h"
#include "ops/lora.h"

namespace nibble {

struct AdapterChanges {
  std::map<std::string, std::vector<Lora>, std::less<>>
      low_rank;                                         // added to the matrix of this name [out, in], in turn
  std::map<std::string, Tensor, std::less<>> added;     // to the vector of this name
  std::map<std::string, Tensor, std::less<>> replaced;  // instead of the tensor of this name, before anything is added
  std::set<std::string, std::less<>> of_base;           // those of `replaced` that are the base's own, beside low_rank
};

/// Reads adapters and finds the parameters that they mean, with or without the prefix ("bert.", "transformer.") that
/// one of the two may lack.
/// @throws Error{format} listing up to ten layers that the model does not have or that have another shape there, and
///         for what does not add up: a tensor that two adapters replace, DoRA of a layer that one before it changes;
///         Error{unsupported} for kinds of adapters that cannot be merged.
AdapterChanges read_adapter_changes(const std::vector<std::string>& folders, const std::vector<Parameter>& parameters);

}  // namespace nibble
