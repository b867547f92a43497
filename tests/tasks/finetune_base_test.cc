// What an adapter is trained over: a base that is quantized is used as it is, whatever the method is called.
#include <gtest/gtest.h>

#include "nibble/finetune.h"
#include "nibble/quantize.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

class FinetuneBase : public ::testing::Test {
 protected:
  FinetuneOptions options(const std::string& method) {
    const std::string data = temp_.write("data.jsonl", "{\"input_ids\": [5, 17, 9, 4, 11, 6]}\n").string();
    return {.method = method, .data = data, .lora = {.r = 4, .target_modules = "all-linear"}, .steps = 2};
  }
  std::string train(const std::string& base, const FinetuneOptions& o) {
    const std::string out = (temp_ / ("out" + std::to_string(++runs_))).string();
    used_ = finetune(base, out, o).options;
    return read_file(out + "/adapter_model.safetensors");
  }
  std::string quantized(const std::string& format) {
    quantize(tiny_folder().string(), (temp_ / format).string(), {.format = format});
    return (temp_ / format).string();
  }
  /// Trained the same by both methods; the format is not another one, and has to be the right one where it is given.
  void expect_used_as_it_is(const std::string& base, const std::string& format) {
    EXPECT_EQ(train(base, options("qlora")), train(base, options("lora"))) << base;
    FinetuneOptions o = options("qlora");
    o.format = format == "nf4" ? "fp4" : "nf4";
    expect_error(ErrorCode::unsupported, base + " is quantized to " + format + " already", [&] { train(base, o); });
  }

  TempFolder temp_;
  FinetuneOptions used_;
  int runs_ = 0;
};

TEST_F(FinetuneBase, QuantizedFoldersAreUsedAsTheyAre) {
  for (const char* format : {"nf4", "fp4", "int4", "int8", "int8-dynamic"}) {
    const std::string base = quantized(format);
    expect_used_as_it_is(base, format);
    FinetuneOptions o = options("qlora");
    o.format = format;
    EXPECT_EQ(train(base, o), train(base, options("qlora"))) << format;
  }
}

TEST_F(FinetuneBase, BlocksOfGgufAreUsedAsTheyAre) {
  NIBBLE_NEED_SHARED("goldens/gguf/q4_0.gguf");
  const std::string folder = (shared_folder() / "goldens/gguf/").string();
  expect_used_as_it_is(folder + "q4_0.gguf", "q4_0");
  EXPECT_EQ(used_.format, "");
  train(folder + "f16.gguf", options("qlora"));
  EXPECT_EQ(used_.format, "nf4");
}

TEST_F(FinetuneBase, OptionsOfRoundingHaveNoEffectOverAQuantizedOne) {
  const std::string base = quantized("nf4");
  void (*changes[])(FinetuneOptions&) = {
      [](FinetuneOptions& o) { o.block = 128; }, [](FinetuneOptions& o) { o.double_quant = true; },
      [](FinetuneOptions& o) { o.granularity = "tensor"; }, [](FinetuneOptions& o) { o.skip = {"q_proj"}; }};
  for (const auto change : changes) {
    FinetuneOptions o = options("qlora");
    change(o);
    expect_error(ErrorCode::invalid_argument, "has no effect over " + base, [&] { train(base, o); });
  }
  FinetuneOptions merged = options("qlora"), same = options("lora");
  for (FinetuneOptions* o : {&merged, &same}) o->merge_aware = "nf4", o->block = 128;
  EXPECT_EQ(train(base, merged), train(base, same)) << "they are those of the merge";
}

}  // namespace
}  // namespace nibble
