#pragma once
// How a model gets its weights: it asks for each by name and shape. All that do not fit are collected, so that one
// message lists them. Without a source the same requests only describe the model: its parameters, for planning and for
// knowing which tensors are Linear layers.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ops/linear.h"
#include "quant/weight_source.h"

namespace nibble {

enum class Role { linear, head, embedding, vector };

struct Parameter {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  Shape shape;
  Role role;
};

/// Which modules a skip list means, as transformers 5 matches them: an entry is a regular expression's plain prefix of
/// the module path up to a dot, or a plain suffix of it.
bool is_skipped(std::string_view module, const std::vector<std::string>& skip);

struct LoadOptions {
  const Format* format = nullptr;  // quantize dense Linear layers while loading; null: as stored
  EncodeOptions encode = {};
  std::vector<std::string> skip_modules = {};  // besides the output head, which is never quantized
  ComputeOptions compute = {};
  std::optional<uint64_t> memory_limit = {};  // bytes of weights in memory; layers beyond it stay in their file
  std::function<void(int64_t done, int64_t total)> progress = {};
};

/// Where a layer's weights are. A layer is everything under "...layers.N", or a tensor outside of them.
struct Placement {
  std::string layer;
  Residency residency = Residency::memory;
  uint64_t bytes = 0;
};

class Loader {
 public:
  /// Describes only.
  Loader() = default;
  Loader(const WeightSource& source, LoadOptions options);

  /// A layer of the model: "P.weight" [out, in] and, with bias, "P.bias" [out].
  enum class Bias { no, yes };
  Linear linear(const std::string& module, int64_t out, int64_t in, Bias bias = Bias::no);
  /// The output head: a Linear that is quantized only when it is stored so.
  Linear head(const std::string& module, int64_t out, int64_t in);
  Weight embedding(const std::string& name, int64_t rows, int64_t cols);
  /// f32 [count], for norms and biases.
  Tensor vector(const std::string& name, int64_t count);

  /// @throws Error{format} listing up to ten tensors that are missing or have another shape.
  void finish() const;

  /// How the model is to compute its products.
  const ComputeOptions& compute() const { return options_.compute; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// In the order of loading.
  const std::vector<Placement>& placements() const { return placements_; }
  /// Bytes of all loaded weights in the form they are kept in.
  uint64_t bytes() const { return bytes_; }

 private:
  Weight fetch(const std::string& name, const Shape& shape, Role role);
  Residency place(const std::string& name);
  uint64_t planned_bytes(const SourceTensor& tensor) const;
  Weight quantize_on_load(Weight weight, const std::string& name) const;

  const WeightSource* source_ = nullptr;
  LoadOptions options_;
  std::vector<Parameter> parameters_;
  std::vector<std::string> mismatches_;
  std::vector<Placement> placements_;
  uint64_t bytes_ = 0;
};

}  // namespace nibble
