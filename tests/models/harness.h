#pragma once
// Running a model folder of the reference results.
#include <memory>
#include <string>

#include "io/model_files.h"
#include "io/quantization_config.h"
#include "models/registry.h"
#include "support/goldens.h"

namespace nibble::test {

inline std::unique_ptr<Model> load(const std::string& path, LoadOptions options = {}) {
  const ModelFiles files = open_model(path);
  const QuantizationConfig stored = parse_quantization_config(files.config, path);
  options.compute.compute_dtype = stored.compute_dtype;
  options.compute.int8_threshold = stored.threshold;
  Loader loader(*files.weights, std::move(options));
  return build_model(files.config, path, loader);
}

/// The tokens that greedy decoding with a cache gives, and the logits they were chosen from.
struct Greedy {
  std::vector<int32_t> ids;
  std::vector<float> logits;  // [count, vocab]
};

inline Greedy greedy(const Model& model, const std::vector<int32_t>& prompt, size_t count,
                     DType kv_dtype = DType::f32) {
  KvCache cache = model.new_cache(static_cast<int64_t>(prompt.size() + count), kv_dtype);
  Greedy out;
  Tensor logits = model.forward_last({.ids = prompt}, &cache);
  while (true) {
    const float* row = logits.f32();
    out.logits.insert(out.logits.end(), row, row + logits.cols());
    out.ids.push_back(static_cast<int32_t>(std::max_element(row, row + logits.cols()) - row));
    if (out.ids.size() == count) return out;
    logits = model.forward_last({.ids = std::span(&out.ids.back(), 1)}, &cache);
  }
}

}  // namespace nibble::test
