#pragma once
// The bundled model, and variants of its folder made on the fly.
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "io/safetensors.h"
#include "nibble/model.h"
#include "support/files.h"

namespace nibble::test {

inline std::filesystem::path tiny_folder() {
  return std::filesystem::path(NIBBLE_SOURCE_DIR) / "tests" / "data" / "tiny-llama";
}

inline const CausalLM& tiny() {
  static const CausalLM model = AutoModelForCausalLM::from_pretrained(tiny_folder().string());
  return model;
}

inline CausalLM load(const std::filesystem::path& path, const LoadModelOptions& options = {}) {
  return AutoModelForCausalLM::from_pretrained(path.string(), options);
}

inline std::string heldout() { return read_file(tiny_folder() / "heldout.txt"); }
inline Json tiny_expected() { return Json::parse_file((tiny_folder() / "expected.json").string()); }

inline std::vector<int32_t> ids_at(const Json& object, const std::string& key) {
  std::vector<int32_t> ids;
  for (const Json& id : object.find(key)->as_array(key)) ids.push_back(static_cast<int32_t>(id.as_int(key)));
  return ids;
}

/// Links the files of the bundled model into `to`, those of `replaced` written anew; "" leaves a file out.
inline std::filesystem::path tiny_variant(const TempFolder& to, const std::string& name,
                                          const std::map<std::string, std::string>& replaced) {
  namespace fs = std::filesystem;
  fs::create_directories(to / name);
  for (const auto& entry : fs::directory_iterator(tiny_folder())) {
    const std::string file = entry.path().filename().string();
    if (!replaced.contains(file)) fs::create_symlink(entry.path(), to / name / file);
  }
  for (const auto& [file, bytes] : replaced) {
    if (!bytes.empty()) to.write(name + "/" + file, bytes);
  }
  return to / name;
}

/// The bundled model with some values replaced: tensor name -> flat index -> bf16 bits.
using Bf16Patches = std::map<std::string, std::map<int64_t, uint16_t>>;

inline std::filesystem::path patched_tiny(const TempFolder& to, const Bf16Patches& patches) {
  const std::filesystem::path folder = tiny_variant(to, "patched", {{"model.safetensors", ""}});
  const SafetensorsFile in(tiny_folder() / "model.safetensors");
  std::vector<TensorDeclaration> declared;
  for (const SafetensorsEntry& e : in.entries()) declared.push_back({e.name, DType::bf16, e.shape});
  SafetensorsWriter out(folder / "model.safetensors", declared);
  for (const SafetensorsEntry& e : in.entries()) {
    Tensor tensor = in.load(e.name);
    if (const auto found = patches.find(e.name); found != patches.end()) {
      for (const auto& [index, bits] : found->second) tensor.data<uint16_t>()[index] = bits;
    }
    out.write(e.name, tensor);
  }
  out.finish();
  return folder;
}

}  // namespace nibble::test
