#pragma once
// Writes the weights of a model folder: one safetensors file, or shards with an index, tensor by tensor.
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "core/output.h"
#include "io/safetensors.h"

namespace nibble {

/// One logical tensor of the output; its pieces always go into the same shard.
struct PlannedTensor {
  std::vector<TensorDeclaration> pieces;
  int64_t parameters = 0;  // elements of the tensor it stands for

  uint64_t bytes() const;
};

/// Bytes of the safetensors files that write_weights() makes, headers included.
uint64_t weight_files_bytes(const std::vector<PlannedTensor>& tensors, uint64_t max_shard_size);

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

/// Writes model.safetensors, or model-0000i-of-0000N.safetensors and model.safetensors.index.json when the tensors
/// exceed max_shard_size. `produce(i)` gives the pieces of tensor i, in order of i; they are freed once written.
/// @returns bytes of all tensors
uint64_t write_weights(OutputFolder& folder, const std::vector<PlannedTensor>& tensors, uint64_t max_shard_size,
                       const std::function<NamedTensors(size_t)>& produce);

}  // namespace nibble
