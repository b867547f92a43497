#include "io/folder_source.h"

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "core/file.h"
#include "core/json.h"
#include "io/bnb_names.h"
#include "io/safetensors.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

/// "fp32", "fp16", "bf16" as the format table has them; other element types keep their own name in lower case.
std::string dense_format_name(const std::string& stored) {
  const std::optional<DType> dtype = dtype_from_safetensors(stored);
  if (dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16) return std::string(dtype_name(*dtype));
  std::string name = stored;
  for (char& c : name) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return name;
}

/// Norms of checkpoints that were made from TensorFlow's, like BERT's own, have its names; transformers renames them
/// when it reads them.
struct OldEnding {
  std::string_view stored, modern;
};
constexpr OldEnding kOldEndings[] = {{"LayerNorm.gamma", "LayerNorm.weight"}, {"LayerNorm.beta", "LayerNorm.bias"}};

std::string modern_name(const std::string& stored) {
  for (const OldEnding& ending : kOldEndings) {
    if (!stored.ends_with(ending.stored)) continue;
    return stored.substr(0, stored.size() - ending.stored.size()) + std::string(ending.modern);
  }
  return stored;
}

class FolderSource : public WeightSource {
 public:
  explicit FolderSource(const fs::path& folder) {
    for (const std::string& name : weight_file_names(folder)) files_.emplace_back(folder / name);
    find_old_names();
    for (size_t f = 0; f < files_.size(); ++f) {
      for (const SafetensorsEntry& entry : files_[f].entries()) add_stored(entry, f);
    }
    if (!fs::exists(folder / kWeights)) check_index(folder);
    list_tensors();
  }

  const std::vector<SourceTensor>& tensors() const override { return tensors_; }

  const SourceTensor* find(std::string_view name) const override {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }

  Weight load(std::string_view name, Residency residency) const override {
    const std::string key(name);
    const auto folded = folded_.find(key);
    if (folded != folded_.end()) return load_folded(folded->second, reader(residency));
    return file_of(key).load(stored_name(key), residency);
  }

  std::string origin(std::string_view name) const override { return file_of(std::string(name)).path().string(); }

 private:
  bool any_file_has(const std::string& name) const {
    return std::any_of(files_.begin(), files_.end(), [&](const SafetensorsFile& f) { return f.find(name) != nullptr; });
  }

  void find_old_names() {
    for (const SafetensorsFile& file : files_) {
      for (const SafetensorsEntry& entry : file.entries()) {
        const std::string modern = modern_name(entry.name);
        if (modern != entry.name && !any_file_has(modern)) old_names_.emplace(modern, entry.name);
      }
    }
  }

  /// As it stands in the file.
  const std::string& stored_name(const std::string& name) const {
    const auto old = old_names_.find(name);
    return old == old_names_.end() ? name : old->second;
  }

  /// As the models ask for it.
  std::string asked_name(const std::string& stored) const {
    const std::string modern = modern_name(stored);
    return old_names_.contains(modern) ? modern : stored;
  }

  void add_stored(const SafetensorsEntry& entry, size_t file) {
    const std::string name = asked_name(entry.name);
    const auto [place, is_new] = file_index_.emplace(name, file);
    if (!is_new) {
      fail(ErrorCode::format, files_[file].path().string() + ": tensor '" + printable(entry.name, 200) + "' is in " +
                                  files_[place->second].path().string() + " too");
    }
    stored_.push_back({.name = name,
                       .dtype = entry.dtype,
                       .shape = entry.shape,
                       .bytes = entry.bytes(),
                       .file = files_[file].path().string()});
  }

  /// Every tensor that the index promises must be where it says.
  void check_index(const fs::path& folder) const {
    const std::string where = (folder / kIndex).string();
    const Json index = Json::parse_file(where);
    for (const auto& [name, file] : index.find("weight_map")->as_object(where)) {
      const auto found = file_index_.find(asked_name(name));
      const std::string& expected = file.as_string(where);
      if (found == file_index_.end() || files_[found->second].path().filename() != expected) {
        fail(ErrorCode::format, where + ": tensor '" + printable(name, 200) + "' is not in " +
                                    printable(expected, 200) + "; are all files of one download?");
      }
    }
  }

  void list_tensors() {
    std::unordered_set<std::string> pieces;
    for (FoldedWeight& weight : fold_pieces(stored_, reader(Residency::memory))) {
      for (const auto& piece : weight.pieces) pieces.insert(piece.second);
      pieces.insert(weight.consumed.begin(), weight.consumed.end());
      std::string name = weight.name;
      folded_.emplace(std::move(name), std::move(weight));
    }
    for (const StoredTensor& tensor : stored_) {
      const auto folded = folded_.find(tensor.name);
      if (folded != folded_.end()) {
        const FoldedWeight& weight = folded->second;
        tensors_.push_back({tensor.name, weight.empty.shape, std::string(weight.empty.format->name), weight.bytes});
      } else if (!pieces.contains(tensor.name)) {
        tensors_.push_back({tensor.name, tensor.shape, dense_format_name(tensor.dtype), tensor.bytes});
      }
    }
    for (size_t i = 0; i < tensors_.size(); ++i) index_.emplace(tensors_[i].name, i);
  }

  const SafetensorsFile& file_of(const std::string& name) const {
    const auto found = file_index_.find(name);
    if (found == file_index_.end()) {
      fail(ErrorCode::format,
           files_.front().path().parent_path().string() + ": has no tensor '" + printable(name, 200) + "'");
    }
    return files_[found->second];
  }

  ReadStored reader(Residency residency) const {
    return [this, residency](const std::string& name, ReadAs as) {
      const SafetensorsFile& file = file_of(name);
      const std::string& stored = stored_name(name);
      return as == ReadAs::bytes ? file.load_bytes(stored, residency) : file.load(stored, residency);
    };
  }

  std::vector<SafetensorsFile> files_;
  std::unordered_map<std::string, std::string> old_names_;  // modern name -> the one in the file, where they differ
  std::unordered_map<std::string, size_t> file_index_;      // name -> position in files_
  std::vector<StoredTensor> stored_;
  std::unordered_map<std::string, FoldedWeight> folded_;
  std::vector<SourceTensor> tensors_;
  std::unordered_map<std::string_view, size_t> index_;  // name (held by tensors_) -> position in tensors_
};

[[noreturn]] void fail_no_weights(const fs::path& folder) {
  std::string hint;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".bin" || extension == ".pt" || extension == ".pth") {
      hint = "; " + entry.path().filename().string() +
             " can run code when it is read, so it is not: save the model as safetensors";
    }
  }
  fail(ErrorCode::io, folder.string() + ": has neither " + kWeights + " nor " + kIndex + hint);
}

}  // namespace

std::vector<std::string> weight_file_names(const fs::path& folder) {
  if (fs::exists(folder / kWeights)) return {kWeights};
  if (!fs::exists(folder / kIndex)) fail_no_weights(folder);
  const std::string where = (folder / kIndex).string();
  const Json index = Json::parse_file(where);
  const Json* map = index.find("weight_map");
  if (map == nullptr) fail(ErrorCode::format, where + ": has no weight_map");
  std::set<std::string> names;
  for (const auto& [tensor, file] : map->as_object(where + ": weight_map")) {
    const std::string place = where + ": weight_map '" + printable(tensor, 200) + "'";
    const std::string& name = file.as_string(place);
    require_plain_name(name, place);
    names.insert(name);
  }
  if (names.empty()) fail(ErrorCode::format, where + ": weight_map is empty");
  for (const std::string& name : names) {
    if (!fs::exists(folder / name)) fail(ErrorCode::io, where + ": names " + name + ", which is not in the folder");
  }
  return {names.begin(), names.end()};
}

std::unique_ptr<WeightSource> open_folder_weights(const fs::path& folder) {
  return std::make_unique<FolderSource>(folder);
}

}  // namespace nibble
