// Where weights are changes nothing of what is computed.
#include <gtest/gtest.h>

#include "nibble/quantize.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

uint64_t bytes_on(const DeviceMap& map, const std::string& device) {
  uint64_t bytes = 0;
  for (const LayerPlacement& placed : map) bytes += placed.device == device ? placed.bytes : 0;
  return bytes;
}

TEST(DeviceMap, PlacesLayersInMemoryAsFarAsTheyFit) {
  const uint64_t all = bytes_on(tiny().device_map(), "cpu");
  EXPECT_EQ(all, tiny().weight_bytes());
  EXPECT_EQ(bytes_on(tiny().device_map(), "disk"), 0u);
  const CausalLM half = load(tiny_folder(), {.max_memory = {{"cpu", all / 2}}});
  EXPECT_LE(bytes_on(half.device_map(), "cpu"), all / 2);
  EXPECT_EQ(bytes_on(half.device_map(), "cpu") + bytes_on(half.device_map(), "disk"), all);
  EXPECT_GT(bytes_on(half.device_map(), "cpu"), 0u);
}

TEST(DeviceMap, EveryPlacementOfEveryFormatPredictsTheSame) {
  const TempFolder folder;
  const std::vector<int32_t> ids = tiny().encode("The wind was cold");
  for (const char* format : {"fp32", "bf16", "nf4", "int4", "int8", "int8-dynamic"}) {
    SCOPED_TRACE(format);
    const std::string model = (folder / format).string();
    quantize(tiny_folder().string(), model, {.format = format});
    const CausalLM in_memory = load(model, {.device_map = "cpu"});
    const std::vector<float> expected = in_memory.logits(ids);
    EXPECT_EQ(load(model, {.device_map = "disk"}).logits(ids), expected);
    EXPECT_EQ(load(model, {.max_memory = {{"cpu", in_memory.weight_bytes() / 2}}}).logits(ids), expected);
  }
}

TEST(DeviceMap, BlocksOfGgufPredictTheSameMappedAndPacked) {
  NIBBLE_NEED_SHARED("goldens/gguf/q4_0.gguf");
  const std::vector<int32_t> ids = {1, 5, 9, 2, 7};
  for (const char* type : {"q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "mixed"}) {
    SCOPED_TRACE(type);
    const std::string model = (shared_folder() / "goldens/gguf" / (std::string(type) + ".gguf")).string();
    for (const char* activations : {"fp32", "int16", "int8"}) {
      const auto logits = [&](const char* map) {
        return load(model, {.activations = activations, .device_map = map}).logits(ids);
      };
      EXPECT_EQ(logits("disk"), logits("cpu")) << activations;
    }
  }
}

TEST(DeviceMap, RefusesWhatItCannotDo) {
  const auto refuse = [](ErrorCode code, const std::string& fragment, const LoadModelOptions& options) {
    expect_error(code, fragment, [&] { load(tiny_folder(), options); });
  };
  refuse(ErrorCode::invalid_argument, "device_map: found 'cuda', expected auto, cpu or disk", {.device_map = "cuda"});
  refuse(ErrorCode::invalid_argument, "max_memory: found device '0', expected cpu", {.max_memory = {{"0", 1}}});
  refuse(ErrorCode::invalid_argument, "max_memory: needs device_map auto, not disk",
         {.device_map = "disk", .max_memory = {{"cpu", 1}}});
  refuse(ErrorCode::resources, "does not fit into the memory for weights (1000 bytes)",
         {.format = "nf4", .max_memory = {{"cpu", 1000}}});
}

}  // namespace
}  // namespace nibble
