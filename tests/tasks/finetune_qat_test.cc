// Runs that train for quantization: what is written computes what training saw, stopping and going on, what is refused.
#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "core/progress.h"
#include "io/peft.h"
#include "nibble/classify.h"
#include "nibble/finetune.h"
#include "nibble/lora.h"
#include "nibble/merge.h"
#include "nibble/quantize.h"
#include "ops/linear_observer.h"
#include "support/tiny_encoder.h"
#include "tasks/finetune_data.h"
#include "tasks/tiny.h"
#include "tasks/training_log.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

/// The mean loss of a file's samples, in batches of so many.
double loss_of_all(const std::shared_ptr<LoadedModel>& model, const std::string& path, size_t batch) {
  const bool classify = model->model->info().is_encoder;
  const int64_t longest = model->model->info().context_length;
  const TrainingData data = read_training_data(model, path, {.classify = classify, .max_length = longest});
  const auto rows = rows_of(data.samples, false, longest);
  const std::vector<size_t> order = epoch_order(rows.size(), false, 0, 0);
  Loss loss;
  for (size_t first = 0; first < order.size(); first += batch) {
    const size_t end = std::min(first + batch, order.size());
    const std::vector<size_t> chosen(order.begin() + static_cast<int64_t>(first),
                                     order.begin() + static_cast<int64_t>(end));
    const Loss part = loss_of(*model->model, batch_of(data.samples, rows, chosen));
    loss.sum += part.sum;
    loss.count += part.count;
  }
  return loss.mean();
}

class FinetuneQatTest : public ::testing::Test {
 protected:
  std::string data(const std::string& name, int first, int count) {
    std::string lines;
    for (int i = first; i < first + count; ++i) {
      lines += Json::object({{"text", heldout().substr(static_cast<size_t>(i) * 60, 60)}}).dump() + "\n";
    }
    return temp_.write(name, lines).string();
  }
  FinetuneOptions options(const std::string& method) {
    return {.method = method,
            .data = data("data.jsonl", 0, 8),
            .eval_data = data("eval.jsonl", 8, 3),
            .lora = {.r = 4, .target_modules = "all-linear"},
            .steps = 5,
            .batch = 2,
            .learning_rate = method == "qat" ? 1e-3 : 1e-2,
            .eval_every = 100};
  }
  FinetuneReport run(const std::string& out, const FinetuneOptions& o) {
    return finetune(tiny_folder().string(), at(out), o);
  }
  std::string at(const std::string& name) const { return (temp_ / name).string(); }
  std::string weights(const std::string& out) const { return read_file(temp_ / (out + "/model.safetensors")); }

  /// Of the data that options() evaluates on, in batches of two as training has them.
  double eval_loss(const std::string& model, const LoadModelOptions& load = {}) const {
    return loss_of_all(load_model(model, load), at("eval.jsonl"), 2);
  }

  TempFolder temp_;
};

struct QatRow {
  const char* name;
  void (*change)(FinetuneOptions&);
};

const QatRow kRows[] = {
    {"int4", [](FinetuneOptions& o) { o.format = "int4", o.block = 32; }},
    {"nf4", [](FinetuneOptions& o) { o.double_quant = true, o.skip = {"down_proj"}; }},
    {"bf16", [](FinetuneOptions& o) { o.format = "fp4", o.compute_dtype = DType::bf16; }},
    {"int8", [](FinetuneOptions& o) { o.format = "int8"; }},
    {"tensor", [](FinetuneOptions& o) { o.format = "int8-dynamic", o.granularity = "tensor"; }},
    {"observed", [](FinetuneOptions& o) { o.format = "int8-dynamic", o.qat_activations = "observed"; }},
    {"lora", [](FinetuneOptions& o) { o.format = "int4", o.use_lora = true, o.skip = {"down_proj"}; }},
    {"lora_observed",
     [](FinetuneOptions& o) { o.format = "int8-dynamic", o.qat_activations = "observed", o.use_lora = true; }},
};

class EveryQat : public FinetuneQatTest, public ::testing::WithParamInterface<QatRow> {};

// The loss of the prepared model at the end of training is that of the folder, to the last bit.
TEST_P(EveryQat, TheFolderComputesWhatTrainingSaw) {
  FinetuneOptions o = options("qat");
  GetParam().change(o);
  const FinetuneReport report = run("out", o);
  EXPECT_EQ(report.method, "qat");
  ASSERT_TRUE(report.eval_loss);
  EXPECT_EQ(eval_loss(at("out"), {.compute_dtype = o.compute_dtype}), *report.eval_loss);
  EXPECT_FALSE(fs::exists(temp_ / "out/adapter_config.json"));
  EXPECT_NE(Json::parse_file(at("out/config.json")).find("quantization_config"), nullptr);
}

TEST_P(EveryQat, StoppingAndGoingOnGivesTheSameBytes) {
  FinetuneOptions o = options("qat");
  GetParam().change(o);
  o.eval_data.clear(), o.eval_every = 0;
  o.schedule = "cosine";
  o.save_every = 3;
  run("out", o);
  o.resume = at("out/checkpoint-3");
  run("resumed", o);
  EXPECT_EQ(weights("out"), weights("resumed"));
}

INSTANTIATE_TEST_SUITE_P(Rows, EveryQat, ::testing::ValuesIn(kRows),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(FinetuneQatTest, TrainsAndLearnsThroughTheRounding) {
  std::map<bool, int64_t> trained;
  for (const bool use_lora : {false, true}) {
    FinetuneOptions o = options("qat");
    o.eval_data.clear(), o.eval_every = 0;
    o.format = "int4";
    o.block = 128;
    o.batch = 8;  // all samples in every step
    o.steps = 8;
    o.use_lora = use_lora;
    o.learning_rate = use_lora ? 1e-2 : 1e-3;
    const std::string name = use_lora ? "lora" : "all";
    const FinetuneReport report = run(name, o);
    EXPECT_LT(report.final_loss, number(read_log(temp_ / name)[0], "loss") - 0.3) << name;
    trained[use_lora] = report.trainable_parameters;
  }
  EXPECT_LT(trained[true], trained[false] / 5);
}

// Between two batches of a step: their inputs were observed, but the step has not been.
TEST_F(FinetuneQatTest, AnInterruptedStepLeavesNoTraceInTheRanges) {
  FinetuneOptions o = options("qat");
  o.format = "int8-dynamic";
  o.qat_activations = "observed";
  o.grad_accum = 2;
  run("whole", o);
  int64_t calls = 0, of_a_step = 0;
  {
    const LinearObserver observer([&](const LinearCall&) { ++calls; });
    FinetuneOptions one = o;
    one.steps = 1;
    one.eval_data.clear(), one.eval_every = 0;
    run("one", one);
    of_a_step = calls;
  }
  calls = 0;
  const LinearObserver observer([&](const LinearCall&) {
    if (++calls == of_a_step + of_a_step / 4) request_interrupt();
  });
  expect_error(ErrorCode::interrupted, "interrupted at step 1", [&] { run("stopped", o); });
  o.resume = "last";
  run("stopped", o);
  EXPECT_EQ(weights("stopped"), weights("whole"));
}

TEST_F(FinetuneQatTest, ObservedRangesStandStillInTheEnd) {
  FinetuneOptions o = options("qat");
  o.format = "int8-dynamic";
  o.qat_activations = "observed";
  o.steps = 11;  // the last two of them are a tenth, rounded up
  o.save_every = 1;
  run("out", o);
  const std::string layer = "model.layers.1.mlp.up_proj";
  const auto range_at = [&](int step) {
    const SafetensorsFile file(temp_ / ("out/checkpoint-" + std::to_string(step) + "/state.safetensors"));
    const Tensor ends = file.load("observed." + layer);
    return std::pair(ends.f32()[0], ends.f32()[1]);
  };
  EXPECT_NE(range_at(8), range_at(9));
  EXPECT_EQ(range_at(9), range_at(10));
  EXPECT_EQ(range_at(9), range_at(11));
  EXPECT_LT(range_at(9).first, range_at(9).second);
}

TEST_F(FinetuneQatTest, RangesOfACheckpointAreChecked) {
  FinetuneOptions o = options("qat");
  o.format = "int8-dynamic";
  o.qat_activations = "observed";
  o.save_every = 3;
  run("out", o);
  const fs::path state = temp_ / "out/checkpoint-3/state.safetensors";
  const SafetensorsFile file(state);
  const std::string bytes = read_file(state);
  const std::string name = "observed.model.layers.1.mlp.up_proj";
  const size_t data = bytes.size() - file.entries().back().end;
  o.resume = at("out/checkpoint-3");
  std::string changed = bytes;
  const float wrong[] = {2.0f, 1.0f};
  std::memcpy(changed.data() + data + file.find(name)->begin, wrong, sizeof wrong);
  temp_.write("out/checkpoint-3/state.safetensors", changed);
  expect_error(ErrorCode::format, name + ": is no range", [&] { run("resumed", o); });
  changed = bytes;
  changed.replace(changed.find(name), name.size(), "observed.model.layers.1.mlp.up_prox");
  temp_.write("out/checkpoint-3/state.safetensors", changed);
  expect_error(ErrorCode::format, "the checksum is not that of", [&] { run("resumed", o); });
}

TEST_F(FinetuneQatTest, SkippedStepsObserveNothing) {
  const fs::path model = patched_tiny(temp_, {{"model.layers.1.mlp.down_proj.weight", {{0, 0x7f7f}, {1, 0x7f7f}}}});
  FinetuneOptions o = options("qat");
  o.format = "int8-dynamic";
  o.qat_activations = "observed";
  o.on_nonfinite = "skip";
  o.eval_data.clear(), o.eval_every = 0;
  o.save_every = 2;
  o.steps = 2;
  expect_error(ErrorCode::internal, "all 2 steps were skipped", [&] { finetune(model.string(), at("out"), o); });
  const SafetensorsFile file(temp_ / "out/checkpoint-2/state.safetensors");
  for (const SafetensorsEntry& entry : file.entries()) EXPECT_FALSE(entry.name.starts_with("observed.")) << entry.name;
}

TEST_F(FinetuneQatTest, AClassifierIsWrittenQuantized) {
  const std::string model = write_encoder(temp_, "bert");
  std::string rows = "text\tlabel\n";
  for (const char* word : {"film", "so", "very", "is", "was", "not"}) {
    rows += std::string(word) + " good\tgood\n" + word + " bad\tbad\n";
  }
  for (const bool use_lora : {false, true}) {
    const std::string out = use_lora ? "lora" : "all";
    const FinetuneOptions o = {.method = "qat",
                               .data = temp_.write("d.tsv", rows).string(),
                               .eval_data = at("d.tsv"),
                               .lora = {.r = 4, .target_modules = {"query", "value"}},
                               .use_lora = use_lora,
                               .format = "int4",
                               .block = 32,
                               .epochs = 30,
                               .batch = 6,
                               .learning_rate = 5e-3};
    const FinetuneReport report = finetune(model, at(out), o);
    EXPECT_EQ(report.task, "seq_cls");
    const auto tuned = AutoModelForSequenceClassification::from_pretrained(at(out));
    EXPECT_EQ(loss_of_all(tuned.shared(), at("d.tsv"), 6), *report.eval_loss) << out;
    EXPECT_EQ(tuned.classify("so good").label, "good") << out;
    EXPECT_EQ(tuned.classify("so bad").label, "bad") << out;
    const SafetensorsFile file(temp_ / (out + "/model.safetensors"));
    EXPECT_EQ(file.find("classifier.weight")->dtype, "F32");
    EXPECT_EQ(file.find("bert.encoder.layer.0.attention.self.query.weight")->dtype, "U8");
  }
}

struct MergeRow {
  const char *name, *method, *base;  // format of the base on disk; "" = dense
  MergeOptions merge;
};

// From a dense base, from a quantized one, and from one that is quantized while loading.
TEST_F(FinetuneQatTest, AMergeAwareAdapterMergesIntoWhatTrainingSaw) {
  const MergeRow rows[] = {{"dense-nf4", "lora", "", {.to = "nf4"}},
                           {"dense-int4", "lora", "", {.to = "int4", .double_quant = true, .block = 32}},
                           {"dense-int8", "lora", "", {.to = "int8"}},
                           {"dense-dynamic", "lora", "", {.to = "int8-dynamic"}},
                           {"nf4-nf4", "lora", "nf4", {.to = "nf4"}},
                           {"nf4-double", "lora", "nf4", {.to = "nf4", .double_quant = true}},
                           {"fp4-fp4", "lora", "fp4", {.to = "fp4"}},
                           {"fp4-block", "lora", "fp4", {.to = "fp4", .block = 128}},
                           {"int4-int4", "lora", "int4", {.to = "int4"}},
                           {"int8-nf4", "lora", "int8", {.to = "nf4"}},
                           {"loaded-nf4", "qlora", "nf4", {.to = "nf4"}}};
  for (const MergeRow& row : rows) {
    const std::string name = row.name, base = row.base[0] ? at(name + "-base") : tiny_folder().string();
    if (row.base[0]) quantize(tiny_folder().string(), base, {.format = row.base});
    FinetuneOptions o = options(row.method);
    o.merge_aware = row.merge.to;
    o.block = row.merge.block;
    o.double_quant = row.merge.double_quant;
    const bool on_load = o.method == "qlora";
    const FinetuneReport report = finetune(on_load ? tiny_folder().string() : base, at(name), o);
    EXPECT_EQ(load_lora_config(at(name)).r, 4);
    const MergeReport merged = merge(base, at(name), at(name + "-merged"), row.merge);
    EXPECT_TRUE(merged.as_trained) << name;
    EXPECT_EQ(merged.dithered, row.base == row.merge.to && row.merge.block == 0) << name;
    EXPECT_EQ(eval_loss(at(name + "-merged"), {.activations = "fp32"}), *report.eval_loss) << name;
    const MergeReport other = merge(base, at(name), at(name + "-other"), {.to = "bf16"});
    EXPECT_FALSE(other.as_trained);
    ASSERT_TRUE(other.trained_for);
    EXPECT_EQ(other.trained_for->format, row.merge.to);
  }
  // Over another base it is another model.
  EXPECT_FALSE(merge(tiny_folder().string(), at("loaded-nf4"), at("x"), {.to = "nf4", .force = true}).as_trained);
  EXPECT_FALSE(merge(tiny_folder().string(), at("dense-int4"), at("y"), {.to = "int4", .force = true}).as_trained);
}

// A base in the format of the merge, but with one scale for a whole matrix: the merge encodes also the layers without
// an adapter anew.
TEST_F(FinetuneQatTest, LayersThatTheMergeWouldEncodeAnewAreTrainedSo) {
  quantize(tiny_folder().string(), at("base"), {.format = "int8-dynamic", .granularity = "tensor"});
  FinetuneOptions o = options("lora");
  o.lora.target_modules = {"q_proj"};
  o.merge_aware = "int8-dynamic";
  const FinetuneReport report = finetune(at("base"), at("out"), o);
  EXPECT_TRUE(merge(at("base"), at("out"), at("merged"), {.to = "int8-dynamic"}).as_trained);
  EXPECT_EQ(eval_loss(at("merged"), {.activations = "fp32"}), *report.eval_loss);
}

TEST_F(FinetuneQatTest, MergeAwareRunsContinueToo) {
  FinetuneOptions o = options("qlora");
  o.merge_aware = "nf4";
  o.save_every = 3;
  run("out", o);
  o.resume = at("out/checkpoint-3");
  run("resumed", o);
  const auto adapter = [&](const char* name) { return read_file(temp_ / name / "adapter_model.safetensors"); };
  EXPECT_EQ(adapter("out"), adapter("resumed"));
  o.merge_aware.clear();
  expect_error(ErrorCode::invalid_argument, "merge_aware: the checkpoint has \"nf4\", this run \"\"",
               [&] { run("resumed-plainly", o); });
  o.resume.clear();
  o.overwrite = true;
  run("out", o);
  EXPECT_FALSE(fs::exists(temp_ / "out/merge_aware.json")) << "of the run before";
}

// Such an adapter was trained before there was dither.
TEST_F(FinetuneQatTest, ARecordWithoutDitherMeansNone) {
  const std::string base = at("base");
  quantize(tiny_folder().string(), base, {.format = "nf4"});
  FinetuneOptions o = options("lora");
  o.merge_aware = "nf4";
  finetune(base, at("out"), o);
  temp_.write("out/merge_aware.json", R"({"format": "nf4", "block": 64, "double_quant": false, "base": "nf4"})");
  const MergeReport nearest = merge(base, at("out"), at("nearest"), {.to = "nf4"});
  EXPECT_TRUE(nearest.as_trained);
  EXPECT_FALSE(nearest.dithered);
  const MergeReport dithered = merge(base, at("out"), at("dithered"), {.to = "nf4", .dither = true, .force = true});
  EXPECT_FALSE(dithered.as_trained);
  EXPECT_TRUE(dithered.dithered);
}

TEST_F(FinetuneQatTest, ABrokenRecordOfTheMergeIsRefused) {
  FinetuneOptions o = options("lora");
  o.merge_aware = "int8";
  o.steps = 1;
  run("out", o);
  const auto merge_with = [&](const char* record) {
    temp_.write("out/merge_aware.json", record);
    merge(tiny_folder().string(), at("out"), at("merged"),
          {.to = "int8", .progress = [](const Progress&) { ADD_FAILURE() << "a tensor was converted"; }});
  };
  expect_error(ErrorCode::format, "merge_aware.json: block: is missing", [&] { merge_with(R"({"format": "int8"})"); });
  expect_error(ErrorCode::format, "merge_aware.json: format",
               [&] { merge_with(R"({"format": 4, "block": 0, "double_quant": false, "base": "dense"})"); });
  expect_error(ErrorCode::format, "merge_aware.json: dither", [&] {
    merge_with(R"({"format": "int8", "block": 0, "double_quant": false, "dither": 1, "base": "dense"})");
  });
  EXPECT_FALSE(fs::exists(temp_ / "merged"));
}

// The result is one model with one table, so the head that shares it learns with it.
TEST_F(FinetuneQatTest, ATableThatTheHeadSharesStaysOne) {
  FinetuneOptions o = options("qat");
  o.format = "int4";
  o.use_lora = true;
  o.lora.modules_to_save = {"embed_tokens"};
  const FinetuneReport report = run("out", o);
  EXPECT_EQ(eval_loss(at("out"), {}), *report.eval_loss);
  o.lora.modules_to_save = {"lm_head"};
  expect_error(ErrorCode::unsupported, "modules_to_save: lm_head.weight: has no place of its own",
               [&] { run("x", o); });
}

TEST_F(FinetuneQatTest, OptionsThatMakeNoSenseAreRefused) {
  struct Row {
    const char* method;
    void (*change)(FinetuneOptions&);
    ErrorCode code;
    const char* says;
  };
  const Row rows[] = {
      {"qat", [](FinetuneOptions& o) { o.format = "bf16"; }, ErrorCode::invalid_argument, "is not a quantized one"},
      {"qat", [](FinetuneOptions& o) { o.format = "nf5"; }, ErrorCode::invalid_argument, "did you mean 'nf4'"},
      {"qat", [](FinetuneOptions& o) { o.granularity = "row"; }, ErrorCode::invalid_argument, "granularity"},
      {"qat", [](FinetuneOptions& o) { o.skip = {"nothing"}; }, ErrorCode::invalid_argument, "nothing"},
      {"qat", [](FinetuneOptions& o) { o.qat_activations = "observed"; }, ErrorCode::invalid_argument,
       "go with format int8-dynamic alone"},
      {"qat",
       [](FinetuneOptions& o) {
         o.format = "int8-dynamic", o.qat_activations = "observed", o.gradient_checkpointing = true;
       },
       ErrorCode::invalid_argument, "gradient_checkpointing"},
      {"qat", [](FinetuneOptions& o) { o.init_adapter = "x"; }, ErrorCode::invalid_argument, "trains no adapter"},
      {"qat", [](FinetuneOptions& o) { o.merge_aware = "nf4"; }, ErrorCode::invalid_argument, "merge_aware: goes with"},
      {"qat", [](FinetuneOptions& o) { o.use_lora = true, o.lora.use_dora = true; }, ErrorCode::unsupported, "DoRA"},
      {"qat", [](FinetuneOptions& o) { o.use_lora = true, o.lora.lora_dropout = 0.5; }, ErrorCode::invalid_argument,
       "lora_dropout: found 0.5"},
      {"qat",
       [](FinetuneOptions& o) {
         o.use_lora = true, o.lora.target_modules = {"q_proj"}, o.skip = {"layers.1.self_attn"};
       },
       ErrorCode::invalid_argument, "layers.1.self_attn"},
      {"qat",
       [](FinetuneOptions& o) { o.use_lora = true, o.lora.target_modules = {"q_proj"}, o.skip = {"model.layers.1"}; },
       ErrorCode::invalid_argument, "model.layers.1.self_attn.q_proj is not quantized"},
      {"lora", [](FinetuneOptions& o) { o.merge_aware = "fp16"; }, ErrorCode::invalid_argument, "not a quantized one"},
      {"lora", [](FinetuneOptions& o) { o.merge_aware = "nf4", o.lora.use_dora = true; }, ErrorCode::unsupported,
       "DoRA"},
      {"lora", [](FinetuneOptions& o) { o.merge_aware = "nf4", o.lora.init_lora_weights = "pissa_niter_4"; },
       ErrorCode::invalid_argument, "pissa does not go with merge_aware"},
      {"lora", [](FinetuneOptions& o) { o.granularity = "tensor"; }, ErrorCode::invalid_argument,
       "granularity: goes with methods qlora and qat"},
      {"full", [](FinetuneOptions& o) { o.granularity = "tensor"; }, ErrorCode::invalid_argument,
       "granularity: goes with methods qlora and qat"},
      {"lora", [](FinetuneOptions& o) { o.merge_aware = "nf4", o.lora.lora_dropout = 0.1; },
       ErrorCode::invalid_argument, "lora_dropout"},
      {"qlora", [](FinetuneOptions& o) { o.activations = "int8"; }, ErrorCode::invalid_argument,
       "activations: found 'int8', expected fp32 or int16"},
      {"qat", [](FinetuneOptions& o) { o.activations = "int16"; }, ErrorCode::invalid_argument,
       "activations: does not go with method qat"},
      {"lora", [](FinetuneOptions& o) { o.skip = {"q_proj"}; }, ErrorCode::invalid_argument, "skip: goes with"},
      {"full", [](FinetuneOptions& o) { o.qat_activations = "observed"; }, ErrorCode::invalid_argument,
       "qat_activations: goes with method qat"},
  };
  for (const Row& row : rows) {
    FinetuneOptions o = options(row.method);
    row.change(o);
    expect_error(row.code, row.says, [&] { run("out", o); });
    EXPECT_FALSE(fs::exists(temp_ / "out")) << row.says;
  }
}

TEST_F(FinetuneQatTest, AdaptersThatTheFolderHasNoPlaceForAreRefusedBeforeAnythingIsLoaded) {
  FinetuneOptions plain = options("lora");
  plain.lora.target_modules = {"q_proj", "embed_tokens"};
  plain.steps = 1;
  run("plain", plain);
  for (const bool given : {false, true}) {
    FinetuneOptions o = options("qat");
    o.use_lora = true;
    if (given) o.init_adapter = at("plain");
    if (!given) o.lora.target_modules = {"q_proj", "embed_tokens"};
    o.progress = [](const Progress&) { ADD_FAILURE() << "a tensor was loaded"; };
    expect_error(ErrorCode::unsupported, "target_modules: model.embed_tokens: is an embedding", [&] { run("out", o); });
    EXPECT_FALSE(fs::exists(temp_ / "out"));
  }
}

TEST_F(FinetuneQatTest, YamlKeysSaySoToo) {
  const auto read = [&](const std::string& text) {
    return finetune_options_from_file(temp_.write("run.yaml", text).string());
  };
  const FinetuneOptions o =
      read("method: qat\nformat: int8-dynamic\ngranularity: tensor\nqat_activations: observed\nskip: [down_proj]\n");
  EXPECT_EQ(o.method, "qat");
  EXPECT_EQ(o.granularity, "tensor");
  EXPECT_EQ(o.qat_activations, "observed");
  EXPECT_EQ(o.skip, std::vector<std::string>{"down_proj"});
  EXPECT_FALSE(o.use_lora);
  EXPECT_TRUE(read("method: qat\nlora_r: 4\n").use_lora);
  for (const char* text : {"method: qat\nadapter: lora\n", "adapter: lora\nmethod: qat\n"}) {
    EXPECT_EQ(read(text).method, "qat") << text;
    EXPECT_TRUE(read(text).use_lora) << text;
  }
  EXPECT_EQ(read("adapter: qlora\nmerge_aware: nf4\n").merge_aware, "nf4");
  for (const char* text :
       {"adapter:\n", "adapter: ''\n", "adapter: false\n", "use_dora: false\n", "modules_to_save: []\n"}) {
    EXPECT_FALSE(read("method: qat\n" + std::string(text)).use_lora) << text;
  }
  EXPECT_TRUE(read("method: qat\nuse_lora: true\n").use_lora);
  EXPECT_FALSE(read("use_lora: false\nmethod: qat\nlora_r: 4\n").use_lora) << "whatever the order";
  expect_error(ErrorCode::format, "adapter: found 'ia3', expected lora or qlora", [&] { read("adapter: ia3\n"); });
  expect_error(ErrorCode::format, "method qat starts from a dense model",
               [&] { read("method: qat\nload_in_4bit: true\n"); });
}

}  // namespace
}  // namespace nibble
