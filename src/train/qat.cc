#include "train/qat.h"

#include "core/error.h"
#include "ops/fake_quant.h"

namespace nibble {
namespace {

void for_prepared(Model& model, const std::function<void(Linear&)>& see) {
  for_each_linear(model, [&](Linear& layer) {
    if (layer.fake_quant) see(layer);
  });
}

FakeQuant fake_quant_of(const QatConfig& config) {
  FakeQuant fake = {.format = &find_format(config.format),
                    .encode = {.block = config.block,
                               .double_quant = config.double_quant,
                               .granularity = parse_granularity(config.granularity)},
                    .dither = config.dither};
  check_encode_options(*fake.format, fake.encode);
  if (fake.format->dense) {
    fail(ErrorCode::invalid_argument, "format '" + config.format + "' is not a quantized one");
  }
  const bool observed = config.activations == "observed";
  if (!observed && config.activations != "dynamic") {
    fail(ErrorCode::invalid_argument,
         "qat: activations: found '" + config.activations + "', expected dynamic or observed");
  }
  if (observed && config.format != "int8-dynamic") {
    fail(ErrorCode::invalid_argument, "qat: observed activation ranges go with format int8-dynamic alone");
  }
  if (observed) fake.input.emplace();
  return fake;
}

}  // namespace

void check_qat_config(const QatConfig& config) { fake_quant_of(config); }

std::vector<std::string> prepare_qat(Model& model, const QatConfig& config,
                                     const std::function<bool(std::string_view module)>& chosen) {
  const FakeQuant fake = fake_quant_of(config);
  std::vector<std::string> modules;
  for_each_linear(model, [&](Linear& layer) {
    if (!chosen(layer.name)) return;
    layer.fake_quant = std::make_shared<FakeQuant>(fake);
    modules.push_back(layer.name);
  });
  if (modules.empty()) fail(ErrorCode::invalid_argument, "qat: no Linear layer of the model is chosen");
  return modules;
}

void freeze_qat_ranges(Model& model) {
  for_prepared(model, [](Linear& layer) { layer.fake_quant->observes = false; });
}

ObservedRanges observed_ranges(Model& model) {
  ObservedRanges ranges;
  for_prepared(model, [&](Linear& layer) {
    const auto& input = layer.fake_quant->input;
    if (input && !input->extents().empty()) ranges.emplace(layer.name, input->extents()[0]);
  });
  return ranges;
}

void restore_observed_ranges(Model& model, const ObservedRanges& ranges) {
  std::map<std::string_view, MovingExtents*> observing;  // by module
  for_prepared(model, [&](Linear& layer) {
    if (auto& input = layer.fake_quant->input) observing.emplace(layer.name, &*input);
  });
  for (const auto& [module, extent] : ranges) {
    if (observing.contains(module)) continue;
    fail(ErrorCode::invalid_argument, "qat: a range is given for " + module + ", which observes none in this model");
  }
  for (const auto& [module, input] : observing) {
    const auto found = ranges.find(std::string(module));
    input->restore(found == ranges.end() ? std::vector<Extent>() : std::vector<Extent>{found->second});
  }
}

void convert_qat(Model& model, const ComputeOptions& compute) {
  for_prepared(model, [&](Linear& layer) {
    QuantizedTensor deployed = deployed_weight(layer, compute);
    if (deployed.format->pack) deployed.format->pack(deployed, compute, Residency::memory);
    layer.weight = std::move(deployed);
    layer.adapters.clear();
    layer.fake_quant.reset();
  });
}

}  // namespace nibble
