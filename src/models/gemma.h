#pragma once
#include <memory>
#include <string>

#include "core/json.h"
#include "models/loader.h"
#include "models/model.h"

namespace nibble {

/// gemma2, gemma3_text, and the text part of gemma3.
std::unique_ptr<Model> build_gemma(const Json& config, const std::string& where, Loader& loader);

}  // namespace nibble
