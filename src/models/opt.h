#pragma once
#include <memory>
#include <string>

#include "core/json.h"
#include "models/loader.h"
#include "models/model.h"

namespace nibble {

/// opt.
std::unique_ptr<Model> build_opt(const Json& config, const std::string& where, Loader& loader);

}  // namespace nibble
