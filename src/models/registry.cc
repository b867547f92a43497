// THE TABLE of model families.
#include "models/registry.h"

#include "core/error.h"
#include "models/llama.h"

namespace nibble {
namespace {

constexpr Architecture kArchitectures[] = {
    {"llama", build_llama}, {"mistral", build_llama}, {"qwen2", build_llama},
    {"qwen3", build_llama}, {"smollm3", build_llama},
};

}  // namespace

const Architecture& find_architecture(const Json& config, const std::string& where) {
  const Json* type = config.find_value("model_type");
  if (type == nullptr) fail(ErrorCode::format, where + ": model_type: is missing");
  const std::string& name = type->as_string(where + ": model_type");
  std::string known;
  for (const Architecture& row : kArchitectures) {
    if (row.model_type == name) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.model_type);
  }
  fail(ErrorCode::unsupported, where + ": model_type: '" + name + "' is not supported (known: " + known + ")");
}

std::unique_ptr<Model> build_model(const Json& config, const std::string& where, Loader& loader) {
  std::unique_ptr<Model> model = find_architecture(config, where).build(config, where, loader);
  loader.finish();
  return model;
}

std::vector<Parameter> list_parameters(const Json& config, const std::string& where) {
  Loader describing;
  build_model(config, where, describing);
  return describing.parameters();
}

}  // namespace nibble
