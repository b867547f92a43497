#pragma once
// The table of model families.
#include <memory>
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

/// @throws Error{unsupported} naming the model types that are known.
const Architecture& find_architecture(const Json& config, const std::string& where);

/// Builds and loads a model; `compute` is how its products are computed.
/// @throws Error{format} when tensors are missing or have the wrong shape, Error{unsupported} for an unknown family.
std::unique_ptr<Model> build_model(const Json& config, const std::string& where, Loader& loader);

/// The parameters that a configuration implies, without any weights.
std::vector<Parameter> list_parameters(const Json& config, const std::string& where);

}  // namespace nibble
