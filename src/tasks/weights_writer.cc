#include "tasks/weights_writer.h"

#include <fmt/format.h>

#include <future>

#include "core/json.h"
#include "core/progress.h"

namespace nibble {
namespace {

/// Ranges of tensors, one per shard: as many as fit, at least one.
std::vector<std::pair<size_t, size_t>> split(const std::vector<PlannedTensor>& tensors, uint64_t max_shard_size) {
  std::vector<std::pair<size_t, size_t>> shards;
  size_t begin = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > begin && bytes + tensors[i].bytes() > max_shard_size) {
      shards.emplace_back(begin, i);
      begin = i;
      bytes = 0;
    }
    bytes += tensors[i].bytes();
  }
  shards.emplace_back(begin, tensors.size());
  return shards;
}

using Range = std::pair<size_t, size_t>;

std::vector<TensorDeclaration> pieces_of(const std::vector<PlannedTensor>& tensors, const Range& shard) {
  std::vector<TensorDeclaration> pieces;
  for (size_t i = shard.first; i < shard.second; ++i) {
    pieces.insert(pieces.end(), tensors[i].pieces.begin(), tensors[i].pieces.end());
  }
  return pieces;
}

std::string shard_name(size_t index, size_t count) {
  return count == 1 ? "model.safetensors" : fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

}  // namespace

uint64_t PlannedTensor::bytes() const {
  uint64_t total = 0;
  for (const TensorDeclaration& piece : pieces) {
    total += static_cast<uint64_t>(element_count(piece.shape)) * dtype_bytes(piece.dtype);
  }
  return total;
}

uint64_t weight_files_bytes(const std::vector<PlannedTensor>& tensors, uint64_t max_shard_size) {
  uint64_t total = 0;
  for (const Range& shard : split(tensors, max_shard_size)) total += safetensors_file_bytes(pieces_of(tensors, shard));
  return total;
}

uint64_t write_weights(OutputFolder& folder, const std::vector<PlannedTensor>& tensors, uint64_t max_shard_size,
                       const std::function<NamedTensors(size_t)>& produce) {
  uint64_t total_bytes = 0;
  int64_t total_parameters = 0;
  for (const PlannedTensor& tensor : tensors) {
    total_bytes += tensor.bytes();
    total_parameters += tensor.parameters;
  }
  folder.require_space(total_bytes);
  const auto shards = split(tensors, max_shard_size);
  Json::Object locations;
  for (size_t s = 0; s < shards.size(); ++s) {
    const std::string name = shard_name(s, shards.size());
    const std::vector<TensorDeclaration> pieces = pieces_of(tensors, shards[s]);
    SafetensorsWriter writer(folder.file(name), pieces);
    std::future<void> writing;  // the tensors before, while these are made
    for (size_t i = shards[s].first; i < shards[s].second; ++i) {
      check_interrupt();
      NamedTensors made = produce(i);
      if (writing.valid()) writing.get();
      writing = std::async([&writer, made = std::move(made)] {
        for (const auto& [piece, tensor] : made) writer.write(piece, tensor);
      });
    }
    if (writing.valid()) writing.get();
    writer.finish();
    for (const TensorDeclaration& piece : pieces) locations.emplace_back(piece.name, name);
  }
  if (shards.size() > 1) {
    const Json metadata = Json::object({{"total_parameters", total_parameters}, {"total_size", total_bytes}});
    const Json index = Json::object({{"metadata", metadata}, {"weight_map", Json(std::move(locations))}});
    folder.write_text("model.safetensors.index.json", index.dump(2) + "\n");
  }
  return total_bytes;
}

}  // namespace nibble
