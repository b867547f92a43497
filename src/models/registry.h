#pragma once
// The table of model families.
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/json.h"
#include "models/loader.h"
#include "models/model.h"

namespace nibble {

struct Architecture {
  std::string_view model_type;  // of config.json
  std::unique_ptr<Model> (*build)(const Json& config, const std::string& where, Loader& loader);
};

std::span<const Architecture> all_architectures();

/// Null when the configuration names none or one that is not known.
const Architecture* find_architecture_or_null(const Json& config);

/// @throws Error{unsupported} naming the model types that are known.
const Architecture& find_architecture(const Json& config, const std::string& where);

/// Builds and loads a model; `compute` is how its products are computed.
/// @throws Error{format} when tensors are missing or have the wrong shape, Error{unsupported} for an unknown family.
std::unique_ptr<Model> build_model(const Json& config, const std::string& where, Loader& loader);

/// What a configuration implies.
struct ModelOutline {
  ModelInfo info;
  std::vector<Parameter> parameters;  // in the order of loading: the embeddings first
  std::string tied_head;              // module of a head that has the embeddings' weights, if there is one
};

/// Without loading anything. `names`, when given, are those of the weights: encoders are stored with and without a
/// prefix, which only the names tell.
ModelOutline outline_model(const Json& config, const std::string& where, const WeightSource* names = nullptr);
/// Its parameters alone.
std::vector<Parameter> list_parameters(const Json& config, const std::string& where,
                                       const WeightSource* names = nullptr);

}  // namespace nibble
