// What plan() computes, against files, arithmetic and published figures.
#include "nibble/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "io/safetensors.h"
#include "models/registry.h"
#include "nibble/formats.h"
#include "nibble/quantize.h"
#include "support/families.h"
#include "tasks/loaded_model.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

/// A folder whose weights are ones; only their shapes matter.
std::string make_model(const TempFolder& folder, const Family& family, DType dtype) {
  const std::string config = config_text(family, 64, std::string(torch_dtype_name(dtype)));
  folder.write("model/config.json", config);
  std::vector<TensorDeclaration> declared;
  for (const Parameter& p : list_parameters(Json::parse(config, "test"), "test")) {
    const bool turned = p.orientation == Orientation::in_out;
    declared.push_back({p.name, dtype, turned ? Shape{p.shape[1], p.shape[0]} : p.shape});
  }
  SafetensorsWriter writer((folder / "model") / "model.safetensors", declared);
  for (const TensorDeclaration& d : declared) {
    Tensor ones(DType::f32, d.shape);
    std::fill_n(ones.f32(), ones.count(), 1.0f);
    writer.write(d.name, ones.cast(dtype));
  }
  writer.finish();
  return (folder / "model").string();
}

/// Every format with every choice that makes another file.
std::vector<QuantizeOptions> variants() {
  std::vector<QuantizeOptions> rows;
  for (const FormatInfo& format : list_formats()) {
    rows.push_back({.format = format.name});
    if (format.name == "int8-dynamic") rows.push_back({.format = format.name, .granularity = "tensor"});
    if (format.bits_per_weight_double_quant == 0) continue;
    for (const int64_t block : {32, 128}) rows.push_back({.format = format.name, .block = block});
    for (const int64_t block : {0, 32}) {
      rows.push_back({.format = format.name, .double_quant = true, .block = block});
    }
  }
  return rows;
}

PlanOptions as_plan(const QuantizeOptions& q) {
  return {.format = q.format,
          .double_quant = q.double_quant,
          .block = q.block,
          .granularity = q.granularity,
          .skip = q.skip,
          .max_shard_size = q.max_shard_size};
}

uint64_t weight_file_sizes(const fs::path& folder) {
  uint64_t bytes = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") bytes += entry.file_size();
  }
  return bytes;
}

void expect_exact(const std::string& model, const QuantizeOptions& options) {
  SCOPED_TRACE(options.format + " " + std::to_string(options.block) + (options.double_quant ? " double" : ""));
  const TempFolder out;
  const MemoryPlan p = plan(model, as_plan(options));
  const QuantizeReport written = quantize(model, (out / "q").string(), options);
  EXPECT_EQ(p.weights_bytes, written.bytes_after);
  EXPECT_EQ(p.file_bytes, weight_file_sizes(out / "q"));
  EXPECT_EQ(p.parameters, written.parameters);
}

class PlanFamily : public ::testing::TestWithParam<Family> {};

TEST_P(PlanFamily, WeightsAreTheFilesToTheByteInEveryFormat) {
  const TempFolder folder;
  const std::string model = make_model(folder, GetParam(), DType::bf16);
  for (const QuantizeOptions& options : variants()) {
    expect_exact(model, options);
    // From config.json alone the same: the file's tensors are in the order in which the family asks for them.
    const MemoryPlan shape_only = plan(model + "/config.json", as_plan(options)), p = plan(model, as_plan(options));
    EXPECT_EQ(shape_only.weights_bytes, p.weights_bytes) << options.format;
    EXPECT_EQ(shape_only.file_bytes, p.file_bytes) << options.format;
  }
}

TEST_P(PlanFamily, WeightsOfFp32Models) {
  const TempFolder folder;
  const std::string model = make_model(folder, GetParam(), DType::f32);
  for (const char* format : {"nf4", "int8", "bf16"}) expect_exact(model, {.format = format});
  EXPECT_EQ(plan(model).file_bytes, fs::file_size(fs::path(model) / "model.safetensors"));
}

std::string name_of(const ::testing::TestParamInfo<Family>& info) { return info.param.model_type; }
INSTANTIATE_TEST_SUITE_P(All, PlanFamily, ::testing::ValuesIn(every_family()), name_of);

TEST(Plan, HasARowInThisTestForEveryFamily) {
  std::set<std::string, std::less<>> here;
  for (const Family& f : every_family()) here.insert(f.model_type);
  for (const Architecture& row : all_architectures()) EXPECT_TRUE(here.contains(row.model_type)) << row.model_type;
}

TEST(Plan, CountsShardsSkippedLayersAndTheFilesOwnOrder) {
  const std::string model = tiny_folder().string();
  expect_exact(model, {.format = "nf4", .double_quant = true, .max_shard_size = 100'000});
  expect_exact(model, {.format = "int8", .skip = {"down_proj"}});
  expect_exact(model, {.format = "fp32"});
}

// A quantized folder is planned as it is, and nothing else can be made of it.
TEST(Plan, TakesQuantizedFoldersAsTheyAre) {
  const TempFolder folder;
  const QuantizeReport report =
      quantize(tiny_folder().string(), (folder / "q").string(), {.format = "nf4", .double_quant = true});
  const MemoryPlan p = plan((folder / "q").string());
  EXPECT_EQ(p.weights_bytes, report.bytes_after);
  EXPECT_EQ(p.format, "nf4");
  EXPECT_EQ(p.resident_bytes, plan(tiny_folder().string(), {.format = "nf4", .double_quant = true}).resident_bytes);
  EXPECT_EQ(plan_formats((folder / "q").string()).size(), 1u);
  expect_error(ErrorCode::unsupported, "is quantized already (nf4)",
               [&] { plan((folder / "q").string(), {.format = "int8"}); });
  expect_error(ErrorCode::unsupported, "give the whole folder", [&] { plan((folder / "q" / "config.json").string()); });
}

TEST(Plan, PartsAddUp) {
  for (const char* format : {"fp32", "int8", "nf4"}) {
    const MemoryPlan p = plan("llama-3.2-1b", {.format = format, .context = 1024});
    EXPECT_EQ(p.total_bytes, p.resident_bytes + p.kv_cache_bytes + p.activation_bytes + p.program_bytes);
    EXPECT_EQ(p.activation_bytes, std::max(p.prefill_bytes, p.decode_bytes));
  }
  const MemoryPlan t = plan("llama-3.2-1b", {.task = PlanTask::finetune, .context = 1024});
  EXPECT_EQ(t.total_bytes, t.resident_bytes + t.lora_bytes + t.gradient_bytes + t.optimizer_bytes + t.activation_bytes +
                               t.program_bytes);
}

TEST(Plan, TheCacheIsThatOfTheModel) {
  const CausalLM& model = tiny();
  for (const DType dtype : {DType::f32, DType::bf16, DType::i8}) {
    for (const int64_t context : {1, 63, 64, 65, 200}) {
      const KvCache cache = model.internal().model->new_cache(context, dtype);
      EXPECT_EQ(plan(tiny_folder().string(), {.context = context, .kv_dtype = dtype}).kv_cache_bytes, cache.bytes());
    }
  }
  const auto cache_of = [](int64_t batch) {
    return plan("llama-2-7b", {.context = 512, .batch = batch}).kv_cache_bytes;
  };
  EXPECT_EQ(cache_of(7), 7 * cache_of(1));
}

// 32 layers of q, k, v, o [4096, 4096] and gate, up [11008, 4096], down [4096, 11008]: r (in + out) each.
TEST(Plan, AdaptersByHand) {
  const int64_t all = 16 * 32 * (4 * 8192 + 3 * 15104), qv = 8 * 32 * 2 * 8192;
  const MemoryPlan p = plan("llama-2-7b", {.task = PlanTask::finetune});
  EXPECT_EQ(p.trainable_parameters, all);
  EXPECT_EQ(p.lora_bytes, 4u * all);
  EXPECT_EQ(p.gradient_bytes, 4u * all);
  EXPECT_EQ(p.optimizer_bytes, 8u * all);
  const MemoryPlan few = plan("llama-2-7b", {.task = PlanTask::finetune,
                                             .lora_r = 8,
                                             .target_modules = {"q_proj", "v_proj"},
                                             .optimizer = OptimizerKind::sgd});
  EXPECT_EQ(few.trainable_parameters, qv);
  EXPECT_EQ(few.optimizer_bytes, 0u);
  const MemoryPlan words =
      plan("llama-2-7b", {.task = PlanTask::finetune, .lora_r = 8, .target_modules = {"embed_tokens"}});
  EXPECT_EQ(words.trainable_parameters, 8 * (32000 + 4096));
  // 8-bit Adam: two bytes per value and two scales per 256 of them.
  const MemoryPlan small = plan("llama-2-7b", {.task = PlanTask::finetune, .optimizer = OptimizerKind::adamw8bit});
  EXPECT_EQ(small.optimizer_bytes, 2u * all + 2u * 4u * all / 256u);
  const MemoryPlan full = plan("llama-2-7b", {.task = PlanTask::finetune, .method = TrainingMethod::full});
  EXPECT_EQ(full.gradient_bytes + full.optimizer_bytes + full.resident_bytes, 16u * 6'738'415'616u);
  expect_error(ErrorCode::invalid_argument, "target_modules: 'q_porj' matches no Linear layer of llama-2-7b, did you",
               [] { plan("llama-2-7b", {.task = PlanTask::finetune, .target_modules = {"q_porj"}}); });
}

/// What the output head of a loaded model holds; its own bytes, or those of the table.
uint64_t head_bytes(const CausalLM& model) {
  Weight head;  // which comes last
  for_each_linear(*model.internal().model, [&](Linear& layer) { head = layer.weight; });
  if (const auto* dense = std::get_if<Tensor>(&head)) return dense->bytes();
  uint64_t bytes = 0;
  for (const auto& [name, part] : std::get<QuantizedTensor>(head).parts) bytes += part.bytes();
  return bytes;
}

TEST(Plan, HeadsAreWhatTheLoaderMakesOfThem) {
  int tied = 0, own = 0;
  for (const Family& family : every_family()) {
    const TempFolder folder;
    const std::string model = make_model(folder, family, DType::bf16);
    const ModelOutline outline = outline_model(Json::parse_file(model + "/config.json"), "test");
    if (outline.info.is_encoder) continue;
    const bool is_tied = !outline.tied_head.empty();
    (is_tied ? tied : own) += 1;
    const int64_t keep = static_cast<int64_t>(plan(model).resident_bytes);
    const int64_t before = is_tied ? 0 : static_cast<int64_t>(head_bytes(load(model)));
    for (const char* head : {"nf4", "int8"}) {
      const int64_t after = static_cast<int64_t>(head_bytes(load(model, {.head = head})));
      const int64_t planned = static_cast<int64_t>(plan(model, {.head = head}).resident_bytes);
      // Exact where rows come in groups of 16, by which plans go (quant/resident.h); these vocabularies are of 40.
      EXPECT_GE(planned - keep, after - before) << family.model_type << " " << head;
      EXPECT_LE(planned - keep, after * 48 / 40 - before) << family.model_type << " " << head;
    }
  }
  EXPECT_GT(tied, 0);
  EXPECT_GT(own, 0);
  const std::string tiny_model = tiny_folder().string();
  for (const char* head : {"nf4", "int8"}) {
    const uint64_t planned = plan(tiny_model, {.head = head}).resident_bytes - plan(tiny_model).resident_bytes;
    EXPECT_EQ(planned, head_bytes(load(tiny_model, {.head = head}))) << head;
  }
}

TEST(Plan, CheckpointingSavesMostAtManyLayers) {
  const MemoryPlan p = plan("llama-2-7b", {.task = PlanTask::finetune, .context = 512});
  ASSERT_GE(p.lengths.size(), 4u);
  EXPECT_EQ(p.lengths[0].context, 512);
  EXPECT_EQ(p.lengths[0].activation_bytes, p.activation_bytes);
  // 32 inputs of [512, 4096] f32 are 268 MB; one layer at work and a chunk of logits come to it.
  EXPECT_GT(p.lengths[0].activation_bytes_checkpointed, 268'435'456u);
  EXPECT_LT(p.lengths[0].activation_bytes_checkpointed, p.activation_bytes / 5);
  for (size_t i = 1; i < p.lengths.size(); ++i) {
    EXPECT_EQ(p.lengths[i].context, 2 * p.lengths[i - 1].context);
    EXPECT_GT(p.lengths[i].activation_bytes, p.lengths[i - 1].activation_bytes);
  }
}

TEST(Plan, TheCacheOfQuantizedLayersHas16Bits) {
  const MemoryPlan dense = plan("llama-2-7b", {.format = "bf16"}), nf4 = plan("llama-2-7b", {.format = "nf4"});
  EXPECT_EQ(dense.kv_dtype, DType::f32);
  EXPECT_EQ(nf4.kv_dtype, DType::f16);
  EXPECT_EQ(dense.kv_cache_bytes, 2 * nf4.kv_cache_bytes);
  const MemoryPlan asked = plan("llama-2-7b", {.format = "nf4", .kv_dtype = DType::f32});
  EXPECT_EQ(asked.kv_cache_bytes, dense.kv_cache_bytes);
}

TEST(Plan, SaysWhatFits) {
  const PlanOptions options = {.format = "nf4", .context = 2048, .kv_dtype = DType::f32, .memory = 8'000'000'000};
  const MemoryPlan p = plan("llama-2-7b", options);
  ASSERT_TRUE(p.fits);
  EXPECT_GT(p.largest_context_that_fits, 2048);
  // Exactly: the largest fits and the next does not.
  const auto total_at = [&](int64_t context, int64_t batch) {
    PlanOptions other = options;
    other.context = context;
    other.batch = batch;
    return plan("llama-2-7b", other).total_bytes;
  };
  EXPECT_LE(total_at(p.largest_context_that_fits, 1), *options.memory);
  EXPECT_GT(total_at(p.largest_context_that_fits + 1, 1), *options.memory);
  EXPECT_LE(total_at(2048, p.largest_batch_that_fits), *options.memory);
  EXPECT_GT(total_at(2048, p.largest_batch_that_fits + 1), *options.memory);
}

TEST(Plan, AdvisesOnlyWhatHelps) {
  const MemoryPlan p = plan("llama-2-7b", {.format = "fp16", .memory = 8'000'000'000});
  EXPECT_FALSE(p.fits);
  EXPECT_EQ(p.largest_context_that_fits, 0);
  const auto advised = [&](const std::string& what) {
    return std::any_of(p.advice.begin(), p.advice.end(), [&](const auto& line) { return line.starts_with(what); });
  };
  EXPECT_TRUE(advised("--format nf4 (4 bits: measure the loss"));
  EXPECT_TRUE(advised("--kv-dtype fp16"));
  EXPECT_TRUE(advised("--kv-dtype int8"));
  EXPECT_FALSE(advised("--double-quant"));
  EXPECT_FALSE(advised("--gradient-checkpointing"));
  const MemoryPlan hopeless = plan("llama-2-70b", {.format = "nf4", .memory = 8'000'000'000});
  EXPECT_EQ(hopeless.advice.back(), "nothing here makes it fit: take a smaller model or more memory");
}

TEST(Plan, RefusesWhatMeansNothing) {
  const auto refuse = [](const PlanOptions& options, const std::string& fragment) {
    expect_error(ErrorCode::invalid_argument, fragment, [&] { plan("llama-2-7b", options); });
  };
  const PlanOptions longer = {.prompt_tokens = 20'000};
  expect_error(ErrorCode::invalid_argument, "expected an integer from 0 to 4096", [&] { plan("mistral-7b", longer); });
  refuse({.context = 100, .prompt_tokens = 500}, "prompt_tokens: found 500, expected an integer from 0 to 100");
  refuse({.format = "int8", .double_quant = true}, "double_quant has no meaning for format 'int8'");
  refuse({.format = "nf5"}, "did you mean 'nf4'?");
  refuse({.context = 5000}, "context: found 5000, expected an integer from 0 to 4096");
  refuse({.batch = 0}, "batch: found 0");
  refuse({.kv_dtype = DType::i32}, "kv_dtype: found int32");
  refuse({.head = "int4"}, "head: found 'int4', expected one of keep, nf4, int8");
  refuse({.task = PlanTask::finetune, .head = "nf4"}, "head: is for inference");
  expect_error(ErrorCode::invalid_argument, "is an encoder", [] { plan("bert-base", {.head = "nf4"}); });
  refuse({.format = "nf4", .task = PlanTask::finetune, .method = TrainingMethod::full}, "method full");
  refuse({.format = "nf4", .skip = {"nothing"}}, "skip: 'nothing' matches no layer");
  expect_error(ErrorCode::io, "did you mean 'llama-2-7b'?", [] { plan("lama-2-7b"); });
  expect_error(ErrorCode::invalid_argument, "optimizer: found 'adam', expected one of adamw, adamw8bit, sgd",
               [] { parse_optimizer("adam"); });
}

// As the publishers count them (the sums of the tensors of their files).
TEST(KnownModels, HaveThePublishedNumberOfParameters) {
  const std::pair<const char*, int64_t> published[] = {
      {"llama-2-7b", 6'738'415'616},   {"llama-2-13b", 13'015'864'320}, {"llama-2-70b", 68'976'648'192},
      {"llama-3-8b", 8'030'261'248},   {"llama-3.1-8b", 8'030'261'248}, {"llama-3-70b", 70'553'706'496},
      {"llama-3.2-1b", 1'235'814'400}, {"llama-3.2-3b", 3'212'749'824}, {"tinyllama-1.1b", 1'100'048'384},
      {"smollm2-135m", 134'515'008},   {"smollm2-360m", 361'821'120},   {"smollm2-1.7b", 1'711'376'384},
      {"mistral-7b", 7'241'732'096},   {"qwen2.5-0.5b", 494'032'768},   {"qwen2.5-1.5b", 1'543'714'304},
      {"qwen2.5-3b", 3'085'938'688},   {"qwen2.5-7b", 7'615'616'512},   {"qwen3-0.6b", 596'049'920},
      {"qwen3-8b", 8'190'735'360},     {"gemma-2-2b", 2'614'341'888},   {"gemma-3-1b", 999'885'952},
      {"phi-3-mini", 3'821'079'552},   {"gpt2", 124'439'808},           {"gpt2-xl", 1'557'611'200},
      {"bert-base", 109'482'240},      {"bert-large", 335'141'888},     {"roberta-base", 124'645'632},
      {"distilbert-base", 66'362'880}, {"minilm-l6", 22'713'216},       {"opt-125m", 125'239'296},
      {"opt-350m", 331'196'416},       {"opt-1.3b", 1'315'758'080},     {"opt-6.7b", 6'658'473'984}};
  EXPECT_EQ(std::size(published), known_models().size());
  for (const auto& [name, parameters] : published) EXPECT_EQ(plan(name).parameters, parameters) << name;
}

// The figures that introductions give for a 7B model, next to the real ones; docs/memory.md explains each difference.
TEST(KnownModels, Llama7bBesideTheUsualFigures) {
  const auto gigabytes = [](const PlanOptions& o) {
    return static_cast<double>(plan("llama-2-7b", o).weights_bytes) / 1e9;
  };
  EXPECT_NEAR(gigabytes({.format = "fp32"}), 28.0, 1.1);  // "28 GB" is 7 B; the model has 6.74 B
  EXPECT_NEAR(gigabytes({.format = "fp16"}), 14.0, 0.6);
  EXPECT_NEAR(gigabytes({.format = "int8"}), 7.0, 0.1);
  EXPECT_GT(gigabytes({.format = "nf4"}), 3.5);  // "3.5 GB" has no scales, and the embeddings in 4 bits too
  EXPECT_EQ(plan("llama-2-7b", {.format = "nf4"}).weights_bytes, 4'167'606'080u);
  const WeightBytes plain = plan("llama-2-7b", {.format = "nf4"}).weights;
  const WeightBytes twice = plan("llama-2-7b", {.format = "nf4", .double_quant = true}).weights;
  EXPECT_EQ(plain.linears, 6'476'005'376u / 2);
  EXPECT_EQ(plain.scales, 6'476'005'376u / 64 * 4);
  EXPECT_EQ(twice.scales, 6'476'005'376u / 64);  // "109 MB saved" is what the scales still take: 101 MB
  EXPECT_NEAR(static_cast<double>(plain.scales - twice.scales - twice.double_quant), 302e6, 1e6);  // saved
  // "4.5 GB" for fine-tuning: with checkpointing and short sequences only.
  const MemoryPlan tuned =
      plan("llama-2-7b", {.task = PlanTask::finetune, .context = 512, .gradient_checkpointing = true});
  EXPECT_GT(tuned.total_bytes, 4'500'000'000u);
  EXPECT_LT(tuned.total_bytes, 8'000'000'000u);
}

TEST(Plan, ReadsGgufFiles) {
  const fs::path path =
      fs::path(std::getenv("HOME") ? std::getenv("HOME") : ".") / ".cache/nibble/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!fs::exists(path)) GTEST_SKIP() << path << " is not there; `make demo` fetches it";
  const MemoryPlan p = plan(path.string());
  EXPECT_EQ(p.format, "q4_1");
  EXPECT_EQ(p.parameters, 134'515'008);
  expect_exact(path.string(), {.format = "nf4"});
}

}  // namespace
}  // namespace nibble
