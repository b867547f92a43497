// What quantize() writes, read back.
#include "nibble/quantize.h"

#include <gtest/gtest.h>

#include <cmath>

#include "nibble/formats.h"
#include "nibble/inspect.h"
#include "nibble/system.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

std::string source() { return tiny_folder().string(); }

const std::vector<int32_t>& some_ids() {
  static const std::vector<int32_t> ids = tiny().encode("Captain Wentworth was in the country, and then");
  return ids;
}

std::vector<fs::path> weight_files(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  return files;
}

/// Of all tensors in the folder's files, headers not counted.
uint64_t stored_bytes(const fs::path& folder) {
  uint64_t bytes = 0;
  for (const fs::path& path : weight_files(folder)) {
    const SafetensorsFile file(path);
    for (const SafetensorsEntry& entry : file.entries()) bytes += entry.bytes();
  }
  return bytes;
}

/// Every format with every choice that makes another file.
std::vector<QuantizeOptions> variants() {
  std::vector<QuantizeOptions> rows;
  for (const FormatInfo& format : list_formats()) {
    rows.push_back({.format = format.name});
    if (format.bits_per_weight_double_quant == 0) continue;
    for (const int64_t block : {32, 64, 128}) {
      for (const bool double_quant : {false, true}) {
        rows.push_back({.format = format.name, .double_quant = double_quant, .block = block});
      }
    }
  }
  return rows;
}

std::string label(const QuantizeOptions& o) {
  return o.format + ", block " + std::to_string(o.block) + (o.double_quant ? ", double quantization" : "");
}

TEST(Quantize, EveryFormatReadBackIsTheModelQuantizedWhileLoading) {
  for (const QuantizeOptions& options : variants()) {
    const TempFolder folder;
    const QuantizeReport report = quantize(source(), (folder / "out").string(), options);
    const CausalLM direct =
        load(source(), {.format = options.format, .block = options.block, .double_quant = options.double_quant});
    const CausalLM reloaded = load(folder / "out");
    EXPECT_EQ(reloaded.logits(some_ids()), direct.logits(some_ids())) << label(options);
    EXPECT_EQ(report.bytes_after, stored_bytes(folder / "out")) << label(options);
    EXPECT_EQ(report.parameters, 435'072) << label(options);
    EXPECT_EQ(inspect((folder / "out").string()).parameters, 435'072) << label(options);
    EXPECT_EQ(reloaded.generate("Anne", {.max_tokens = 4}).ids, direct.generate("Anne", {.max_tokens = 4}).ids);
  }
}

TEST(Quantize, ReportsWhatEachLayerLost) {
  const TempFolder folder;
  const QuantizeReport report = quantize(source(), (folder / "out").string(), {.format = "nf4"});
  EXPECT_EQ(report.architecture, "LlamaForCausalLM");
  EXPECT_EQ(report.format, "nf4");
  EXPECT_EQ(report.bytes_before, 870'144u);  // 435,072 bf16
  ASSERT_EQ(report.tensors.size(), 21u);
  EXPECT_EQ(report.kept.size(), 8u);
  uint64_t after = 0;
  for (const TensorReport& t : report.tensors) {
    // NF4 of normally distributed weights in blocks of 64: 9.2 % of the root mean square, 20.7 dB.
    EXPECT_NEAR(t.relative_error, 0.092, 0.01) << t.name;
    EXPECT_NEAR(t.sqnr_db, -20 * std::log10(t.relative_error), 1e-6) << t.name;
    EXPECT_GT(t.max_abs_error, 0) << t.name;
    EXPECT_EQ(t.first_nonfinite, -1) << t.name;
    EXPECT_EQ(t.format, "nf4");
    after += t.bytes_after;
  }
  for (const TensorReport& t : report.kept) {
    EXPECT_EQ(t.relative_error, 0) << t.name;
    EXPECT_EQ(t.format, "bf16");
    EXPECT_EQ(t.bytes_after, t.bytes_before);
    after += t.bytes_after;
  }
  EXPECT_EQ(after, report.bytes_after);
  EXPECT_GT(report.linear_bits_per_weight, 4.5);  // the table and the state of each layer come on top
  EXPECT_LT(report.linear_bits_per_weight, 4.8);
}

TEST(Quantize, ShardsHoldTheSameTensors) {
  const TempFolder folder;
  const fs::path whole = folder / "whole", shards = folder / "shards";
  quantize(source(), whole.string(), {.format = "nf4", .double_quant = true});
  quantize(source(), shards.string(), {.format = "nf4", .double_quant = true, .max_shard_size = 100'000});
  const std::vector<fs::path> files = weight_files(shards);
  EXPECT_GE(files.size(), 3u);
  const Json index = Json::parse_file((shards / "model.safetensors.index.json").string());
  const Json& map = *index.find("weight_map");
  size_t tensors = 0;
  const SafetensorsFile one(whole / "model.safetensors");
  for (const fs::path& path : files) {
    const SafetensorsFile shard(path);
    EXPECT_NE(path.filename().string().find("-of-0000" + std::to_string(files.size())), std::string::npos) << path;
    for (const SafetensorsEntry& entry : shard.entries()) {
      ++tensors;
      ASSERT_NE(map.find(entry.name), nullptr) << entry.name;
      EXPECT_EQ(map.find(entry.name)->as_string("weight_map"), path.filename().string());
      const Tensor a = shard.load_bytes(entry.name), b = one.load_bytes(entry.name);
      EXPECT_TRUE(std::equal(a.raw(), a.raw() + a.bytes(), b.raw(), b.raw() + b.bytes())) << entry.name;
    }
  }
  EXPECT_EQ(tensors, one.entries().size());
  EXPECT_EQ(map.as_object("weight_map").size(), tensors);
  EXPECT_EQ(static_cast<uint64_t>(index.find("metadata")->find("total_size")->as_int("total_size")),
            stored_bytes(whole));
  EXPECT_FALSE(fs::exists(whole / "model.safetensors.index.json"));
  EXPECT_EQ(load(shards).logits(some_ids()), load(whole).logits(some_ids()));
}

// A sharded folder as input, and one shard per tensor as output.
TEST(Quantize, ShardsAreReadAsOneModel) {
  const TempFolder folder;
  quantize(source(), (folder / "dense").string(), {.format = "bf16", .max_shard_size = 1});
  EXPECT_EQ(weight_files(folder / "dense").size(), 29u);
  quantize((folder / "dense").string(), (folder / "a").string(), {.format = "int8"});
  quantize(source(), (folder / "b").string(), {.format = "int8"});
  EXPECT_EQ(load(folder / "a").logits(some_ids()), load(folder / "b").logits(some_ids()));
}

TEST(Quantize, BytesDoNotDependOnThreadsOrRepetition) {
  for (const QuantizeOptions& options : variants()) {
    const TempFolder folder;
    std::string first;
    for (const int threads : {1, 2, 3, 1}) {
      set_threads(threads);
      const fs::path out = folder / ("out" + std::to_string(threads));
      QuantizeOptions again = options;
      again.overwrite = true;
      quantize(source(), out.string(), again);
      const std::string bytes = read_file(out / "model.safetensors");
      if (first.empty()) first = bytes;
      EXPECT_TRUE(bytes == first) << label(options) << ", " << threads << " threads";
    }
    set_threads(0);
  }
}

TEST(Quantize, CountsValuesThatAreNotFinite) {
  const TempFolder folder;
  const std::string layer = "model.layers.1.mlp.down_proj.weight";
  const std::string norm = "model.layers.2.input_layernorm.weight";
  // bf16: 0x7fc0 NaN, 0x7f80 and 0xff80 infinities.
  const fs::path model =
      patched_tiny(folder, {{layer, {{1000, 0x7fc0}, {1001, 0x7fc0}, {5000, 0x7f80}}}, {norm, {{3, 0xff80}}}});
  const QuantizeReport report = quantize(model.string(), (folder / "out").string(), {.format = "int8"});
  for (const auto* list : {&report.tensors, &report.kept}) {
    for (const TensorReport& t : *list) {
      EXPECT_EQ(t.nan_count, t.name == layer ? 2 : 0) << t.name;
      EXPECT_EQ(t.inf_count, t.name == layer || t.name == norm ? 1 : 0) << t.name;
      EXPECT_EQ(t.first_nonfinite, t.name == layer ? 1000 : t.name == norm ? 3 : -1) << t.name;
    }
  }
}

TEST(Quantize, CarriesTheOtherFilesOver) {
  const TempFolder folder;
  const fs::path out = folder / "out";
  quantize(source(), out.string(), {.format = "nf4", .compute_dtype = DType::bf16, .skip = {"o_proj"}});
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(read_file(out / name), read_file(tiny_folder() / name)) << name;
  }
  Json config = Json::parse_file((out / "config.json").string());
  const Json stated = *config.find("quantization_config");
  EXPECT_EQ(stated.find("quant_method")->as_string(""), "bitsandbytes");
  EXPECT_EQ(stated.find("bnb_4bit_quant_type")->as_string(""), "nf4");
  EXPECT_EQ(stated.find("bnb_4bit_compute_dtype")->as_string(""), "bfloat16");
  const auto& kept = stated.find("llm_int8_skip_modules")->as_array("");
  ASSERT_EQ(kept.size(), 4u);
  EXPECT_EQ(kept[3].as_string(""), "lm_head");  // tied, and yet a list without it would have it quantized
  config.erase("quantization_config");
  EXPECT_EQ(config.dump(), Json::parse_file((tiny_folder() / "config.json").string()).dump());
}

// Older BERT files hold the numbers of the positions.
TEST(Quantize, TensorsOfIntegersStayWhatTheyAre) {
  const TempFolder folder;
  const SafetensorsFile original(tiny_folder() / "model.safetensors");
  std::vector<TensorDeclaration> declared = {{"embeddings.position_ids", DType::i64, {3}}};
  for (const SafetensorsEntry& entry : original.entries()) {
    declared.push_back({entry.name, DType::bf16, entry.shape});
  }
  const fs::path with = tiny_variant(folder, "with", {{"model.safetensors", ""}});
  SafetensorsWriter writer(with / "model.safetensors", declared);
  Tensor positions(DType::i64, {3});
  for (int64_t i = 0; i < 3; ++i) positions.data<int64_t>()[i] = i;
  writer.write("embeddings.position_ids", positions);
  for (const SafetensorsEntry& entry : original.entries()) writer.write(entry.name, original.load(entry.name));
  writer.finish();
  quantize(with.string(), (folder / "nf4").string(), {.format = "nf4"});
  quantize(with.string(), (folder / "fp16").string(), {.format = "fp16"});
  dequantize((folder / "nf4").string(), (folder / "dense").string());
  for (const char* name : {"nf4", "fp16", "dense"}) {
    const Tensor kept = SafetensorsFile((folder / name) / "model.safetensors").load("embeddings.position_ids");
    ASSERT_EQ(kept.dtype, DType::i64) << name;
    EXPECT_TRUE(std::equal(kept.raw(), kept.raw() + kept.bytes(), positions.raw())) << name;
  }
}

TEST(Quantize, ParametersOfIntegersAreRefusedByName) {
  const TempFolder folder;
  const SafetensorsFile original(tiny_folder() / "model.safetensors");
  for (const std::string whole : {"model.norm.weight", "model.layers.0.mlp.up_proj.weight"}) {
    std::vector<TensorDeclaration> declared;
    for (const SafetensorsEntry& entry : original.entries()) {
      declared.push_back({entry.name, entry.name == whole ? DType::i32 : DType::bf16, entry.shape});
    }
    const fs::path with = tiny_variant(folder, whole, {{"model.safetensors", ""}});
    SafetensorsWriter writer(with / "model.safetensors", declared);
    for (const SafetensorsEntry& entry : original.entries()) {
      writer.write(entry.name, entry.name == whole ? Tensor(DType::i32, entry.shape) : original.load(entry.name));
    }
    writer.finish();
    const std::string says = "model.safetensors: " + whole + ": found elements of int32, expected floats";
    expect_error(ErrorCode::unsupported, says, [&] { quantize(with.string(), (folder / "out").string(), {}); });
    expect_error(ErrorCode::unsupported, says, [&] { load(with); });
    EXPECT_FALSE(fs::exists(folder / "out"));
  }
}

TEST(Quantize, GgufBecomesAFolder) {
  NIBBLE_NEED_SHARED("goldens/gguf");
  const std::vector<int32_t> ids = {3, 14, 15, 92, 65, 35, 89, 79, 32, 38};
  for (const char* name : {"f32", "f16", "bf16", "q8_0", "q5_0", "q5_1", "q4_0", "q4_1", "mixed"}) {
    const std::string gguf = (shared_folder() / "goldens/gguf" / (std::string(name) + ".gguf")).string();
    const TempFolder folder;
    const QuantizeReport report = quantize(gguf, (folder / "out").string(), {.format = "nf4"});
    EXPECT_EQ(report.tensors.size(), 7u) << name;
    const std::vector<float> a = load(folder / "out").logits(ids), b = load(gguf, {.format = "nf4"}).logits(ids);
    ASSERT_EQ(a.size(), b.size());
    float largest = 0, scale = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      largest = std::max(largest, std::abs(a[i] - b[i]));
      scale = std::max(scale, std::abs(b[i]));
    }
    // Other tensors are rounded to the 16-bit type of the folder: bf16 in the worst case, half a step of 2^-8 each.
    EXPECT_LT(largest, scale / 100) << name;
  }
}

TEST(Quantize, RefusesWithoutWritingAnything) {
  struct Row {
    ErrorCode code;
    const char* message;
    QuantizeOptions options;
  };
  const std::vector<Row> rows = {
      {ErrorCode::invalid_argument, "'nf4'", {.format = "nf5"}},
      {ErrorCode::unsupported, "q8_0", {.format = "q8_0"}},
      {ErrorCode::invalid_argument, "block 63", {.block = 63}},
      {ErrorCode::invalid_argument, "block", {.block = 8192}},
      {ErrorCode::invalid_argument, "block", {.format = "int8", .block = 64}},
      {ErrorCode::invalid_argument, "double_quant", {.format = "int8", .double_quant = true}},
      {ErrorCode::invalid_argument, "granularity", {.granularity = "row"}},
      {ErrorCode::invalid_argument, "compute_dtype", {.compute_dtype = DType::i8}},
      {ErrorCode::invalid_argument, "int8_threshold", {.int8_threshold = -1}}};
  for (const Row& row : rows) {
    const TempFolder folder;
    expect_error(row.code, row.message, [&] { quantize(source(), (folder / "out").string(), row.options); });
    EXPECT_TRUE(fs::is_empty(folder.path())) << row.message;
  }
}

TEST(Quantize, RefusesAModelThatIsQuantizedAlready) {
  const TempFolder folder;
  const std::string once = (folder / "once").string();
  quantize(source(), once, {.format = "nf4"});
  expect_error(ErrorCode::unsupported, "quantized already", [&] { quantize(once, (folder / "twice").string()); });
  expect_error(ErrorCode::unsupported, "nf4", [&] { load(once, {.format = "int8"}); });
  EXPECT_EQ(load(once, {.format = "nf4"}).logits(some_ids()), load(once).logits(some_ids()));
  expect_error(ErrorCode::exists, "--overwrite", [&] { quantize(source(), once); });
}

TEST(Quantize, StopsWhenAskedAndLeavesNothing) {
  const TempFolder folder;
  QuantizeOptions options;
  options.progress = [](const Progress& p) {
    if (p.done == 5) request_interrupt();
  };
  expect_error(ErrorCode::interrupted, "interrupted", [&] { quantize(source(), (folder / "out").string(), options); });
  clear_interrupt();
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace nibble
