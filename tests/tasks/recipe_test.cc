// Recipe files, and names of layers to skip.
#include <gtest/gtest.h>

#include "nibble/quantize.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

TEST(Recipe, SetsEveryOption) {
  const TempFolder folder;
  const auto path = folder.write("recipe.json", R"({"format": "int4", "double_quant": true, "block": 128,
      "granularity": "tensor", "compute_dtype": "bf16", "int8_threshold": 3.5, "skip": ["down_proj", "lm_head"],
      "max_shard_size": 1000000})");
  const QuantizeOptions o = quantize_options_from_file(path.string());
  EXPECT_EQ(o.format, "int4");
  EXPECT_TRUE(o.double_quant);
  EXPECT_EQ(o.block, 128);
  EXPECT_EQ(o.granularity, "tensor");
  EXPECT_EQ(o.compute_dtype, DType::bf16);
  EXPECT_EQ(o.int8_threshold, 3.5f);
  EXPECT_EQ(o.skip, std::vector<std::string>({"down_proj", "lm_head"}));
  EXPECT_EQ(o.max_shard_size, 1'000'000u);
}

TEST(Recipe, KeepsWhatItDoesNotName) {
  const TempFolder folder;
  const auto path = folder.write("recipe.json", R"({"block": 32})");
  const QuantizeOptions base{.format = "fp4", .double_quant = true, .skip = {"q_proj"}, .overwrite = true};
  const QuantizeOptions o = quantize_options_from_file(path.string(), base);
  EXPECT_EQ(o.format, "fp4");
  EXPECT_TRUE(o.double_quant && o.overwrite);
  EXPECT_EQ(o.block, 32);
  EXPECT_EQ(o.skip, base.skip);
}

TEST(Recipe, ErrorsNameTheFileTheKeyAndTheNearestKey) {
  struct Row {
    const char* json;
    const char* message;
  };
  const std::vector<Row> rows = {{R"({"fromat": "nf4"})", "unknown key 'fromat', the nearest is 'format'"},
                                 {R"({"format": 4})", "recipe.json: format"},
                                 {R"({"double_quant": "yes"})", "double_quant"},
                                 {R"({"block": "64"})", "block"},
                                 {R"({"granularity": 1})", "granularity"},
                                 {R"({"compute_dtype": true})", "compute_dtype"},
                                 {R"({"int8_threshold": "6"})", "int8_threshold"},
                                 {R"({"skip": "lm_head"})", "skip"},
                                 {R"({"skip": [1]})", "skip"},
                                 {R"({"max_shard_size": 0})", "max_shard_size"},
                                 {R"([])", "recipe.json"},
                                 {R"({"block": 64)", "recipe.json"}};
  const TempFolder folder;
  for (const Row& row : rows) {
    const auto path = folder.write("recipe.json", row.json);
    expect_error(ErrorCode::format, row.message, [&] { quantize_options_from_file(path.string()); });
  }
  expect_error(ErrorCode::io, "absent.json", [&] { quantize_options_from_file((folder / "absent.json").string()); });
}

TEST(Skip, TakesNamesPrefixesAndSuffixes) {
  struct Row {
    std::string entry;
    size_t kept;
  };
  // 3 layers of 7 matrices; the tied head is none of its own.
  const std::vector<Row> rows = {
      {"model.layers.1.mlp.down_proj", 1}, {"down_proj", 3}, {"model.layers.2", 7}, {"model", 21}};
  for (const Row& row : rows) {
    const TempFolder folder;
    const QuantizeReport report = quantize(tiny_folder().string(), (folder / "out").string(), {.skip = {row.entry}});
    EXPECT_EQ(report.skipped.size(), row.kept) << row.entry;
    EXPECT_EQ(report.tensors.size(), 21 - row.kept) << row.entry;
  }
}

TEST(Skip, AWrongNameIsRefusedWithTheNearest) {
  struct Row {
    const char* entry;
    const char* nearest;
  };
  const std::vector<Row> rows = {{"down_prj", "'down_proj'"},
                                 {"mlp.down_prj", "'mlp.down_proj'"},
                                 {"model.layer.1", "'model.layers.1'"},
                                 {"model.layers.1.mlp.down_prj", "'model.layers.1.mlp.down_proj'"},
                                 {"model.layers.7", "'model.layers.0'"}};
  for (const Row& row : rows) {
    const TempFolder folder;
    expect_error(ErrorCode::invalid_argument, std::string("the nearest is ") + row.nearest, [&] {
      quantize(tiny_folder().string(), (folder / "out").string(), {.skip = {"q_proj", row.entry}});
    });
    EXPECT_FALSE(std::filesystem::exists(folder / "out"));
  }
}

}  // namespace
}  // namespace nibble
