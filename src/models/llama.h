#pragma once
#include <memory>
#include <string>

#include "core/json.h"
#include "models/loader.h"
#include "models/model.h"

namespace nibble {

/// llama, mistral, qwen2, qwen3, smollm3.
std::unique_ptr<Model> build_llama(const Json& config, const std::string& where, Loader& loader);

}  // namespace nibble
