#pragma once
#include <memory>
#include <string>

#include "core/json.h"
#include "models/loader.h"
#include "models/model.h"

namespace nibble {

/// bert, distilbert, roberta: encoders, as they are or with a classifier of sequences on top.
std::unique_ptr<Model> build_bert(const Json& config, const std::string& where, Loader& loader);

}  // namespace nibble
