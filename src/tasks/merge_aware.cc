#include "tasks/merge_aware.h"

#include <map>
#include <set>

#include "core/error.h"
#include "io/model_files.h"
#include "models/registry.h"
#include "models/skip.h"
#include "quant/dither.h"
#include "tasks/adapter_targets.h"
#include "tasks/side_files.h"
#include "tasks/untied_head.h"

namespace nibble {
namespace {

constexpr const char* kFile = "merge_aware.json";
constexpr const char* kDense = "dense";

template <class Layer>
using ByModule = std::map<std::string, const Layer*, std::less<>>;

/// What can have adapters.
class FindLayers final : public ParameterVisitor {
 public:
  void linear(Linear& layer) override {
    linears.emplace(layer.name, &layer);
    has_quantized |= std::holds_alternative<QuantizedTensor>(layer.weight);
  }
  void embedding(Embedding& table) override { tables.emplace(table.name, &table); }
  void vector(const std::string&, Tensor&) override {}

  ByModule<Linear> linears;
  ByModule<Embedding> tables;
  bool has_quantized = false;
};

std::string_view base_format(const Weight& weight) {
  const auto* quantized = std::get_if<QuantizedTensor>(&weight);
  return quantized ? quantized->format->name : kDense;
}

}  // namespace

bool is_stored_so(const QuantizedTensor& w, const Format& format, const EncodeOptions& encode) {
  if (w.format != &format) return false;
  if (w.has("input_scale")) return false;  // a fixed range of inputs was that of the model before
  const bool records_dtype = w.block > 0;
  if (records_dtype && w.dtype != encode.source_dtype) return false;
  return w.bytes() == weight_bytes(layout(w.shape, encode.source_dtype, format, encode));
}

MergeTarget prepare_merge_aware(LoadedModel& model, const QatConfig& config) {
  const ModelFiles files = open_model(model.path);
  const Format& format = find_format(config.format);
  const EncodeOptions encode = {.block = config.block,
                                .double_quant = config.double_quant,
                                .source_dtype = config_dtype(files.config, model.path).value_or(DType::f32)};
  FindLayers layers;
  model.model->visit(layers);
  const bool keeps_dense = layers.has_quantized && !files.is_gguf();  // what the maker of the base kept
  std::set<std::string, std::less<>> chosen;
  std::vector<std::string_view> bases;
  bool dithers = false;
  for (const auto& [module, table] : layers.tables) {
    if (!table->adapters.empty()) bases.push_back(base_format(table->weight));
  }
  for (const Parameter& p : parameters_with_head(outline_model(files.config, model.path, files.weights.get()))) {
    const auto found = layers.linears.find(module_of(p.name));
    if (found == layers.linears.end() || (p.role != Role::linear && p.role != Role::head)) continue;
    const Linear& layer = *found->second;
    const auto* quantized = std::get_if<QuantizedTensor>(&layer.weight);
    if (!layer.adapters.empty()) bases.push_back(base_format(layer.weight));
    const bool stored_so = quantized && layer.adapters.empty() && is_stored_so(*quantized, format, encode);
    const bool kept = p.role == Role::head || (keeps_dense && !quantized) || stored_so;
    if (kept) continue;
    chosen.insert(layer.name);
    dithers |= !layer.adapters.empty() && can_dither(layer.weight, format, encode);
  }
  // With adapters of the head alone, over a base in the format of the merge, nothing is rounded.
  if (!chosen.empty())
    prepare_qat(*model.model, config, [&](std::string_view module) { return chosen.contains(module); });
  return merge_target({format, encode, dithers}, bases);
}

void refuse_unmergeable(const LoraConfig& config, const std::string& model, bool merges_later) {
  if (config.use_dora) {
    fail(ErrorCode::unsupported, "use_dora: DoRA adapters cannot be trained with quantization of the merged matrix");
  }
  if (config.lora_dropout > 0) {
    fail(ErrorCode::invalid_argument, "lora_dropout: found " + std::to_string(config.lora_dropout) +
                                          ", expected 0: the merged matrix has no inputs of the adapter to drop");
  }
  if (merges_later) return;
  const ModelFiles files = open_model(model);
  const AdapterTargets targets(config, "LoraConfig");
  for (const Parameter& p : list_parameters(files.config, model)) {  // by the names of the class
    const std::string module(module_of(p.name));
    if (p.role != Role::embedding || !targets.is_target(module, ModuleKind::embedding)) continue;
    fail(ErrorCode::unsupported, "target_modules: " + module + ": is an embedding, and the quantized result has no " +
                                     "place for its adapter; leave it out, or train without qat");
  }
}

MergeTarget merge_target(const MergeForm& form, std::span<const std::string_view> bases) {
  std::set<std::string> names;
  for (const std::string_view base : bases) {
    const Format* known = find_format_or_null(base);
    names.emplace(known && !known->dense ? std::string(base) : kDense);
  }
  const auto& [format, encode, dither] = form;
  MergeTarget target = {.format = std::string(format.name), .double_quant = encode.double_quant, .dither = dither};
  if (format.block_choice) target.block = block_of(format, encode);
  for (const std::string& name : names) target.base += (target.base.empty() ? "" : "+") + name;
  return target;
}

Json merge_target_json(const MergeTarget& target) {
  return Json::object({{"format", target.format},
                       {"block", target.block},
                       {"double_quant", target.double_quant},
                       {"dither", target.dither},
                       {"base", target.base}});
}

void write_merge_target(OutputFolder& folder, const MergeTarget& target) {
  folder.write_text(kFile, merge_target_json(target).dump(2) + "\n");
}

std::optional<MergeTarget> read_merge_target(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kFile;
  if (!std::filesystem::exists(path)) return std::nullopt;
  const Json json = Json::parse_file(path.string());
  const auto need = [&](const char* key) -> const Json& {
    const Json* value = json.find_value(key);
    if (value == nullptr) fail(ErrorCode::format, path.string() + ": " + key + ": is missing");
    return *value;
  };
  const auto at = [&](const char* key) { return path.string() + ": " + key; };
  const Json* dither = json.find_value("dither");  // adapters from before there was any have none
  return MergeTarget{.format = need("format").as_string(at("format")),
                     .block = need("block").as_int(at("block")),
                     .double_quant = need("double_quant").as_bool(at("double_quant")),
                     .dither = dither && dither->as_bool(at("dither")),
                     .base = need("base").as_string(at("base"))};
}

}  // namespace nibble
