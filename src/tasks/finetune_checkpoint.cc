#include "tasks/finetune_checkpoint.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "core/checksum.h"
#include "core/error.h"
#include "io/safetensors.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFolder = "checkpoint-";
constexpr const char* kTensors = "state.safetensors";
constexpr const char* kState = "trainer_state.json";
constexpr const char* kChecksum = "checksum";
constexpr std::string_view kParameter = "parameter.", kOptimizer = "optimizer.", kObserved = "observed.";

std::optional<int64_t> step_of(const fs::path& path) {
  const std::string name = path.filename().string();
  if (!name.starts_with(kFolder)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + kFolder.size(), end, step);
  return error == std::errc() && at == end ? std::optional(step) : std::nullopt;
}

std::vector<std::pair<std::string, Tensor>> tensors_of(const Optimizer& optimizer, const ObservedRanges& observed) {
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (const TrainedParameter& p : optimizer.parameters())
    tensors.emplace_back(std::string(kParameter) + p.name, p.value);
  for (auto& [name, tensor] : optimizer.state()) tensors.emplace_back(std::string(kOptimizer) + name, tensor);
  for (const auto& [name, extent] : observed) {
    const float ends[] = {extent.low, extent.high};
    tensors.emplace_back(std::string(kObserved) + name, Tensor::from(ends));
  }
  return tensors;
}

/// Of the whole checkpoint: the tensors, and what is written beside them.
std::string checksum_of(const std::vector<std::pair<std::string, Tensor>>& tensors, Json state) {
  Checksum checksum;
  for (const auto& [name, tensor] : tensors) {
    checksum.add(name);
    checksum.add(std::span(tensor.raw(), tensor.bytes()));
  }
  state.erase(kChecksum);
  checksum.add(state.dump());
  return fmt::format("{:016x}", checksum.value());
}

ObservedRanges read_observed(const SafetensorsFile& file) {
  ObservedRanges observed;
  for (const SafetensorsEntry& entry : file.entries()) {
    if (!entry.name.starts_with(kObserved)) continue;
    const std::string where = file.path().string() + ": " + printable(entry.name, 200);
    if (entry.dtype != "F32" || entry.shape != Shape{2}) {
      fail(ErrorCode::format, where + ": found " + entry.dtype + " " + shape_text(entry.shape) + ", expected F32 [2]");
    }
    const Tensor ends = file.load(entry.name);
    const Extent extent = {.low = ends.f32()[0], .high = ends.f32()[1]};
    if (!std::isfinite(extent.low) || !std::isfinite(extent.high) || extent.low > extent.high) {
      fail(ErrorCode::format, where + ": is no range, expected two finite numbers, the smaller one first");
    }
    observed.emplace(entry.name.substr(kObserved.size()), extent);
  }
  return observed;
}

void require_same(const Json& found, const Json& expected, const std::string& where) {
  for (const auto& [key, value] : expected.as_object(where)) {
    const Json* old = found.find(key);
    // What has no effect is not recorded any more.
    if (old && (old->dump() == value.dump() || (key == "format" && value.is_null()))) continue;
    fail(ErrorCode::invalid_argument, where + ": " + key + ": the checkpoint has " +
                                          (old ? printable(old->dump(), 200) : "none") + ", this run " +
                                          printable(value.dump(), 200) + "; continue with the same settings");
  }
}

}  // namespace

void write_checkpoint_state(OutputFolder& folder, const Optimizer& optimizer, const TrainerState& state,
                            const Json& settings) {
  const auto tensors = tensors_of(optimizer, state.observed);
  std::vector<TensorDeclaration> declared;
  for (const auto& [name, tensor] : tensors) declared.push_back({name, tensor.dtype, tensor.shape});
  folder.require_space(safetensors_file_bytes(declared));
  SafetensorsWriter writer(folder.file(kTensors), declared);
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
  Json json = Json::object({{"step", state.step},
                            {"optimizer_steps", optimizer.steps()},
                            {"skipped", state.skipped},
                            {"tokens", state.tokens},
                            {"last_loss", state.last_loss},
                            {"eval_loss", state.eval_loss ? Json(*state.eval_loss) : Json()},
                            {"best_eval_loss", state.best_eval_loss ? Json(*state.best_eval_loss) : Json()},
                            {"evaluations_without_gain", state.evaluations_without_gain},
                            {"eval_checksum", state.eval_checksum},
                            {"settings", settings}});
  json.set(kChecksum, checksum_of(tensors, json));
  folder.write_text(kState, json.dump(2) + "\n");
}

TrainerState read_checkpoint_state(const fs::path& folder, Optimizer& optimizer, const Json& settings) {
  const std::string where = (folder / kState).string();
  const Json json = Json::parse_file(where);
  const auto need = [&](const char* key) -> const Json& {
    const Json* value = json.find(key);
    if (value == nullptr) fail(ErrorCode::format, where + ": " + key + ": is missing");
    return *value;
  };
  require_same(need("settings"), settings, where);
  TrainerState state = {.step = need("step").as_int(where),
                        .skipped = need("skipped").as_int(where),
                        .tokens = need("tokens").as_int(where),
                        .last_loss = need("last_loss").as_double(where)};
  if (const Json& last = need("eval_loss"); !last.is_null()) state.eval_loss = last.as_double(where);
  if (const Json& best = need("best_eval_loss"); !best.is_null()) state.best_eval_loss = best.as_double(where);
  const int64_t optimizer_steps = need("optimizer_steps").as_int(where);
  if (state.step < 0 || optimizer_steps < 0) fail(ErrorCode::format, where + ": step: expected at least 0");
  state.evaluations_without_gain = need("evaluations_without_gain").as_int(where);
  state.eval_checksum = need("eval_checksum").as_string(where);

  const SafetensorsFile file(folder / kTensors);
  for (const TrainedParameter& p : optimizer.parameters()) {
    const std::string name = std::string(kParameter) + p.name;
    const SafetensorsEntry* entry = file.find(name);
    if (entry == nullptr || entry->shape != p.value.shape || entry->dtype != "F32") {
      fail(ErrorCode::format, file.path().string() + ": " + name + ": is missing or has another shape");
    }
    Tensor value = p.value;
    const Tensor saved = file.load(name);
    std::memcpy(value.raw(), saved.raw(), value.bytes());
  }
  std::vector<std::pair<std::string, Tensor>> moments;
  for (const auto& [part, tensor] : optimizer.state())
    moments.emplace_back(part, file.load(std::string(kOptimizer) + part));
  optimizer.restore(optimizer_steps, moments);
  state.observed = read_observed(file);
  if (need(kChecksum).as_string(where) != checksum_of(tensors_of(optimizer, state.observed), json)) {
    fail(ErrorCode::format, where + ": the checksum is not that of what it and " + kTensors +
                                " hold; the checkpoint is damaged, resume from another");
  }
  return state;
}

fs::path checkpoint_path(const fs::path& out, int64_t step) {
  return out / (std::string(kFolder) + std::to_string(step));
}

std::vector<fs::path> list_checkpoints(const fs::path& out) {
  std::vector<fs::path> found;
  if (!fs::is_directory(out)) return found;
  for (const auto& entry : fs::directory_iterator(out)) {
    if (entry.is_directory() && step_of(entry.path())) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) { return step_of(a) < step_of(b); });
  return found;
}

}  // namespace nibble
