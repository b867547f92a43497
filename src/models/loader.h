#pragma once
// How a model gets its weights: it asks for each by name and shape. All that do not fit are collected, so that one
// message lists them. Without a source the same requests only describe the model: its parameters, for planning and for
// knowing which tensors are Linear layers.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ops/linear.h"
#include "quant/resident.h"
#include "quant/weight_source.h"

namespace nibble {

enum class Role { linear, head, embedding, vector };

/// How files hold the dense matrix of a Linear. GPT-2's (transformers' Conv1D) is [in, out]; quantized ones are
/// [out, in] in every file.
enum class Orientation { out_in, in_out };

struct Parameter {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  Shape shape;       // of a Linear: [out, in]
  Role role;
  Orientation orientation = Orientation::out_in;
};

struct LoadOptions {
  const Format* format = nullptr;  // quantize dense Linear layers while loading; null: as stored
  EncodeOptions encode = {};
  std::vector<std::string> skip_modules = {};  // besides the output head
  bool quantize_head = false;                  // the output head too
  const Format* head_format = nullptr;         // the output head, whatever it is stored in; null: as the others say
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

/// Of a parameter that is stored in something else than floats. @throws Error{unsupported}
[[noreturn]] void refuse_elements(const WeightSource& source, const std::string& name, DType found);

class Loader {
 public:
  /// Describes only. `names`, when there are any, answers has().
  explicit Loader(const WeightSource* names = nullptr) : names_(names) {}
  Loader(const WeightSource& source, LoadOptions options);

  /// A layer of the model: "P.weight" [out, in] and, with bias, "P.bias" [out].
  enum class Bias { no, yes };
  Linear linear(const std::string& module, int64_t out, int64_t in, Bias bias = Bias::no);
  /// A layer with bias whose dense matrix is stored as [in, out].
  Linear conv1d(const std::string& module, int64_t out, int64_t in);
  /// The output head: a Linear that is quantized only when it is stored so, or when quantize_head is set.
  Linear head(const std::string& module, int64_t out, int64_t in, Bias bias = Bias::no);
  /// The output head that has the embedding's weights: with head_format a matrix of its own, else the same.
  Linear tied_head(const std::string& module, const Weight& embedding);
  /// Whether the weights have a head of their own where the configuration ties it to a table: files may hold the same
  /// matrix twice.
  bool has_own_head(const std::string& module, const std::string& table) const;
  /// "P.weight" [rows, cols]
  Embedding embedding(const std::string& module, int64_t rows, int64_t cols);
  /// f32 [count], for norms and biases.
  Tensor vector(const std::string& name, int64_t count);

  /// Whether the weights have this tensor; true when there are no weights to ask.
  bool has(const std::string& name) const { return names_ == nullptr || names_->find(name) != nullptr; }

  /// @throws Error{format} listing up to ten tensors that are missing or have another shape.
  void finish() const;

  /// How the model is to compute its products.
  const ComputeOptions& compute() const { return options_.compute; }
  /// The same for the output head. Its rows are predictions of their own; in int8 the activations stay f32.
  ComputeOptions head_compute() const;
  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// The module of a head that has the embedding's weights, and so no parameter of its own; empty when there is none.
  const std::string& tied_head_module() const { return tied_head_module_; }
  /// In the order of loading.
  const std::vector<Placement>& placements() const { return placements_; }
  /// Bytes of all loaded weights in the form they are kept in.
  uint64_t bytes() const { return bytes_; }

 private:
  Weight fetch(const Parameter& parameter);
  Residency place(const std::string& name);
  Residency place_in_memory(const std::string& name);
  Residency place_head(const std::string& name, const Shape& shape);
  /// Whether the memory for weights has room for so many more bytes.
  bool fits(uint64_t bytes) const;
  uint64_t planned_bytes(const SourceTensor& tensor);
  Weight quantize_on_load(Weight weight, const std::string& name) const;
  Weight in_head_format(const Weight& weight) const;

  const WeightSource* source_ = nullptr;
  const WeightSource* names_ = nullptr;
  LoadOptions options_;
  std::vector<Parameter> parameters_;
  std::string tied_head_module_;
  std::vector<std::string> mismatches_;
  std::vector<Placement> placements_;
  uint64_t bytes_ = 0;
  ResidentSizes sizes_;
};

}  // namespace nibble
