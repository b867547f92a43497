// A prepared model computes what the deployed one will, to the last bit, and its gradients pass straight through.
#include "train/qat.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "nibble/merge.h"
#include "nibble/quantize.h"
#include "ops/elementwise.h"
#include "ops/fake_quant.h"
#include "ops/gradient_check.h"
#include "tasks/qat_folder.h"
#include "tasks/tiny.h"
#include "train/harness.h"
#include "train/optimizer.h"

namespace nibble {
namespace {

using namespace nibble::test;

const std::vector<int32_t> kIds = {5, 17, 99, 3, 64, 101, 12, 80, 33, 7, 119, 55};

bool in_layers(std::string_view module) { return module.find(".layers.") != std::string_view::npos; }

std::unique_ptr<Model> tiny_model() { return load(tiny_folder().string(), LoadOptions{}); }

std::vector<float> logits_of(const Model& model, Tape* tape = nullptr) {
  return floats(model.forward({.ids = kIds}, nullptr, tape));
}

LabelledBatch text_batch() { return {.ids = kIds, .labels = kIds}; }

/// A dense f32 folder of the model's trained tensors; all others as they are in the bundled one.
std::string write_masters(const TempFolder& temp, const std::vector<TrainedParameter>& parameters) {
  const std::filesystem::path folder = tiny_variant(temp, "masters", {{"model.safetensors", ""}});
  const SafetensorsFile in(tiny_folder() / "model.safetensors");
  std::vector<TensorDeclaration> declared;
  for (const SafetensorsEntry& e : in.entries()) declared.push_back({e.name, DType::f32, e.shape});
  SafetensorsWriter out(folder / "model.safetensors", declared);
  for (const SafetensorsEntry& e : in.entries()) {
    Tensor value = in.load(e.name).cast(DType::f32);
    for (const TrainedParameter& p : parameters) value = p.name == e.name ? p.value : value;
    out.write(e.name, value);
  }
  out.finish();
  return folder.string();
}

void train_steps(Model& model, const std::vector<TrainedParameter>& parameters, int steps, double rate) {
  Optimizer optimizer(parameters, {});
  for (int i = 0; i < steps; ++i) {
    Tape tape = tape_for(parameters);
    add_gradients(model, text_batch(), label_count(model, text_batch()), tape);
    optimizer.step(gradients_by(tape, parameters), rate);
  }
}

class PreparedModel : public ::testing::TestWithParam<QatConfig> {};

// Prepared: with and without a tape. Converted: in memory, and as quantize() writes the trained weights.
TEST_P(PreparedModel, EqualsTheConvertedAndTheDeployedModel) {
  const QatConfig& config = GetParam();
  for (const Activations activations : {Activations::f32, Activations::i16}) {
    const ComputeOptions compute = {.activations = activations};
    std::unique_ptr<Model> model = load(tiny_folder().string(), {.compute = compute});
    EXPECT_EQ(prepare_qat(*model, config, in_layers).size(), 3u * 7u);
    const auto parameters = train_parameters(*model, in_layers);
    train_steps(*model, parameters, 3, 1e-3);
    const std::vector<float> prepared = logits_of(*model);
    freeze_qat_ranges(*model);
    Tape tape = tape_for(parameters);
    EXPECT_EQ(logits_of(*model, &tape), prepared);
    convert_qat(*model, compute);
    EXPECT_EQ(logits_of(*model), prepared);
    if (config.activations == "observed") continue;
    const TempFolder temp;
    const std::string out = (temp / "out").string();
    quantize(write_masters(temp, parameters), out,
             {.format = config.format,
              .double_quant = config.double_quant,
              .block = config.block,
              .granularity = config.granularity});
    EXPECT_EQ(logits_of(*load(out, {.compute = compute})), prepared);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, PreparedModel,
                         ::testing::Values(QatConfig{.format = "int4"}, QatConfig{.format = "int4", .block = 32},
                                           QatConfig{.format = "nf4"}, QatConfig{.format = "nf4", .double_quant = true},
                                           QatConfig{.format = "fp4"}, QatConfig{.format = "int8"},
                                           QatConfig{.format = "int8-dynamic"},
                                           QatConfig{.format = "int8-dynamic", .granularity = "tensor"},
                                           QatConfig{.format = "int8-dynamic", .activations = "observed"}),
                         [](const auto& info) {
                           std::string name = info.param.format + "_" + info.param.granularity + "_" +
                                              info.param.activations + std::to_string(info.param.block) +
                                              (info.param.double_quant ? "_dq" : "");
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

struct OneLayer {
  Linear layer;
  Tensor x, dy;
};

OneLayer one_layer(const std::string& format) {
  OneLayer one = {.layer = {.name = "l", .weight = gaussian({48, 128}, 1), .bias = gaussian({48}, 2)},
                  .x = gaussian({5, 128}, 3),
                  .dy = gaussian({5, 48}, 4)};
  one.layer.fake_quant = std::make_shared<FakeQuant>(FakeQuant{.format = &find_format(format)});
  return one;
}

std::vector<std::vector<float>> gradients_of(const Linear& layer, const Tensor& x, const Tensor& dy,
                                             const std::vector<Tensor>& watched) {
  Tape tape;
  for (const Tensor& w : watched) tape.watch(w);
  tape.backward(linear(x, layer, {}, &tape), dy);
  std::vector<std::vector<float>> all;
  for (const Tensor& w : watched) all.push_back(floats(tape.gradient(w)));
  return all;
}

// Straight through: as if the layer had the rounded matrix as its weight.
TEST(FakeQuantLinear, GradientsAreThoseOfTheRoundedMatrix) {
  for (const char* format : {"int4", "nf4", "int8", "int8-dynamic"}) {
    const OneLayer one = one_layer(format);
    const Tensor w = std::get<Tensor>(one.layer.weight);
    const Tensor rounded = decode(Weight(deployed_weight(one.layer, {})));
    EXPECT_GT(difference(floats(rounded), floats(w)).largest, 0) << format;
    const Linear dense = {.name = "l", .weight = rounded, .bias = one.layer.bias};
    EXPECT_EQ(gradients_of(one.layer, one.x, one.dy, {one.x, w, *one.layer.bias}),
              gradients_of(dense, one.x, one.dy, {one.x, rounded, *one.layer.bias}))
        << format;
  }
}

// d/dA and d/dB of sum(dy * x (W + s B A)^T): the same as those of a plain adapter, and x sees the merged matrix.
TEST(FakeQuantLinear, GradientsOfAdaptersAreThoseOfTheMergedMatrix) {
  OneLayer one = one_layer("nf4");
  const auto lora = std::make_shared<Lora>(
      Lora{.a = gaussian({4, 128}, 5, 0.1f), .b = gaussian({48, 4}, 6, 0.1f), .scaling = 2, .dropout = 0.5f});
  one.layer.adapters = {lora};
  const Tensor rounded = decode(Weight(deployed_weight(one.layer, {})));
  const auto got = gradients_of(one.layer, one.x, one.dy, {one.x, lora->a, lora->b});
  Linear plain = {.name = "l", .weight = one.layer.weight, .bias = one.layer.bias};
  plain.adapters = {std::make_shared<Lora>(Lora{.a = lora->a, .b = lora->b, .scaling = 2})};
  const auto of_plain = gradients_of(plain, one.x, one.dy, {lora->a, lora->b});
  EXPECT_EQ(got[1], of_plain[0]);
  EXPECT_EQ(got[2], of_plain[1]);
  const Linear merged = {.name = "l", .weight = rounded, .bias = one.layer.bias};
  EXPECT_EQ(got[0], gradients_of(merged, one.x, one.dy, {one.x})[0]);
}

// Inputs beyond an observed range are cut off, and so is their gradient.
TEST(FakeQuantLinear, ObservedRangesCutTheGradientOff) {
  OneLayer one = one_layer("int8-dynamic");
  FakeQuant& fake = *one.layer.fake_quant;
  fake.input.emplace();
  fake.input->observe(gaussian({5, 128}, 3, 0.1f), 5 * 128);
  fake.observes = false;
  const Extent extent = fake.input->extents()[0];
  const std::vector<float> dx = gradients_of(one.layer, one.x, one.dy, {one.x})[0];
  int64_t outside = 0;
  for (int64_t i = 0; i < one.x.count(); ++i) {
    const float value = one.x.f32()[i], margin = (extent.high - extent.low) / 255;
    if (value > extent.low && value < extent.high) {
      EXPECT_NE(dx[static_cast<size_t>(i)], 0) << i;
    }
    if (value < extent.low - margin || value > extent.high + margin) {
      EXPECT_EQ(dx[static_cast<size_t>(i)], 0) << i;
      ++outside;
    }
  }
  EXPECT_GT(outside, 100);
}

// What training writes, run as any model is.
TEST(QatFolder, RunsAsThePreparedModelDid) {
  for (const QatConfig& config :
       {QatConfig{.format = "int4", .block = 32}, QatConfig{.format = "nf4", .double_quant = true},
        QatConfig{.format = "int8"}, QatConfig{.format = "int8-dynamic", .granularity = "tensor"},
        QatConfig{.format = "int8-dynamic", .activations = "observed"}}) {
    const TempFolder temp;
    const std::string out = (temp / "out").string();
    const std::shared_ptr<LoadedModel> model = load_model(tiny_folder().string(), {});
    const auto parameters = train_parameters(*model->model, [](std::string_view) { return true; });
    EXPECT_EQ(prepare_qat_model(*model, config, {"down_proj"}).size(), 3u * 6u);
    train_steps(*model->model, parameters, 3, 1e-3);
    const std::vector<float> prepared = logits_of(*model->model);
    OutputFolder folder(out, Overwrite::no);
    write_qat_model(folder, *model, parameters);
    folder.commit();
    EXPECT_EQ(logits_of(*load_model(out, {})->model), prepared) << config.format << " " << config.activations;
  }
}

TEST(QatFolder, BrokenInputRangesAreRefused) {
  const std::shared_ptr<LoadedModel> model = load_model(tiny_folder().string(), {});
  prepare_qat_model(*model, {.format = "int8-dynamic", .activations = "observed"});
  const auto parameters = train_parameters(*model->model, in_layers);
  train_steps(*model->model, parameters, 1, 1e-3);
  const TempFolder temp;
  OutputFolder folder(temp / "out", Overwrite::no);
  write_qat_model(folder, *model, parameters);
  folder.commit();
  const std::filesystem::path path = temp / "out/model.safetensors";
  const std::string bytes = read_file(path), name = "model.layers.1.mlp.up_proj.weight";
  const SafetensorsFile file(path);
  const auto with = [&](const std::string& part, const auto& value) {
    std::string changed = bytes;
    const size_t data = bytes.size() - file.entries().back().end;  // where the tensors begin
    std::memcpy(changed.data() + data + file.find(name + part)->begin, &value, sizeof value);
    temp.write("out/model.safetensors", changed);
    load_model((temp / "out").string(), {});
  };
  expect_error(ErrorCode::format, "expected a positive number", [&] { with("_input_scale", -1.0f); });
  expect_error(ErrorCode::format, "expected a code from 0 to 255", [&] { with("_input_zero_point", int32_t{256}); });
}

// Trained on an nf4 base through the rounding of the merge: what merge() writes then is what was trained.
TEST(Qat, WithAdaptersTrainsTheMergedModel) {
  const TempFolder temp;
  const std::string base = (temp / "base").string(), adapter = (temp / "adapter").string();
  quantize(tiny_folder().string(), base, {.format = "nf4"});
  const std::unique_ptr<Model> model = load(base, LoadOptions{});
  prepare_qat(*model, {.format = "nf4"}, in_layers);
  const auto parameters = add_lora(*model, {.rank = 4, .alpha = 8}, in_layers);
  const double before = loss_of(*model, text_batch()).mean();
  train_steps(*model, parameters, 30, 1e-2);
  const std::vector<float> prepared = logits_of(*model);
  EXPECT_LT(loss_of(*model, text_batch()).mean(), 0.5 * before);

  temp.write("adapter/adapter_config.json",
             R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"})");
  std::vector<TensorDeclaration> declared;
  for (const TrainedParameter& p : parameters) {
    declared.push_back({"base_model.model." + p.name, DType::f32, p.value.shape});
  }
  SafetensorsWriter writer(adapter + "/adapter_model.safetensors", declared);
  for (const TrainedParameter& p : parameters) writer.write("base_model.model." + p.name, p.value);
  writer.finish();
  merge(base, adapter, (temp / "merged").string(), {.to = "nf4", .dither = true});
  EXPECT_EQ(logits_of(*load((temp / "merged").string(), LoadOptions{})), prepared);
  convert_qat(*model, {});
  EXPECT_EQ(logits_of(*model), prepared);
}

/// Sentences of a kind that the bundled model has not seen.
std::vector<LabelledBatch> price_lists(int count, unsigned seed) {
  std::mt19937 random(seed);
  const char* things[] = {"a ship", "the horse", "one hat", "some tea", "a letter", "the carriage"};
  std::vector<LabelledBatch> batches;
  for (int i = 0; i < count; ++i) {
    std::string text;
    for (int line = 0; line < 6; ++line) {
      text += std::string("Item: ") + things[random() % 6] + "; price: " + std::to_string(random() % 10) + " pounds.\n";
    }
    const std::vector<int32_t> ids = tiny().encode(text);
    batches.push_back({.ids = ids, .labels = ids});
  }
  return batches;
}

double mean_loss(const Model& model, const std::vector<LabelledBatch>& batches) {
  Loss total;
  for (const LabelledBatch& batch : batches) {
    const Loss loss = loss_of(model, batch);
    total.sum += loss.sum;
    total.count += loss.count;
  }
  return total.mean();
}

/// The nf4 model with an adapter that has learned the sentences.
std::unique_ptr<Model> learn_prices(const std::string& base, bool merge_aware) {
  std::unique_ptr<Model> model = load(base, LoadOptions{});
  const auto parameters = add_lora(*model, {.rank = 8, .alpha = 16}, in_layers);
  if (merge_aware) prepare_qat(*model, {.format = "nf4"}, in_layers);
  Optimizer optimizer(parameters, {});
  for (const LabelledBatch& batch : price_lists(120, 1)) {
    Tape tape = tape_for(parameters);
    add_gradients(*model, batch, label_count(*model, batch), tape);
    optimizer.step(gradients_by(tape, parameters), 3e-4);
  }
  return model;
}

// A merge into 4 bits rounds a plain adapter away; over a dithered base much of it stays, and one that was trained
// through that rounding keeps its gain.
TEST(Qat, MergeAwareTrainingKeepsTheGainInFourBits) {
  const TempFolder temp;
  const std::string base = (temp / "base").string();
  quantize(tiny_folder().string(), base, {.format = "nf4"});
  const std::vector<LabelledBatch> validation = price_lists(20, 2);
  const double before = mean_loss(*load(base, LoadOptions{}), validation);
  const std::unique_ptr<Model> plain = learn_prices(base, false), aware = learn_prices(base, true);
  const double gain = before - mean_loss(*plain, validation);
  const auto gain_merged = [&](Model& model, bool dither) {
    prepare_qat(model, {.format = "nf4", .dither = dither}, in_layers);
    return before - mean_loss(model, validation);
  };
  const double rounded = gain_merged(*plain, false), dithered = gain_merged(*plain, true);
  const double trained = gain_merged(*aware, true);
  std::printf(
      "validation loss %.3f; gain of the adapter %.3f, merged %.3f, over the dithered base %.3f, after training "
      "through it %.3f\n",
      before, gain, rounded, dithered, trained);
  EXPECT_LT(rounded, 0.8 * gain);
  EXPECT_GT(dithered, rounded);
  EXPECT_GE(trained, 0.9 * gain);
  EXPECT_GT(trained, dithered);
}

// Rounding to 4 bits costs the trained model something; a few steps that know of it win that back.
TEST(Qat, TrainingRecoversWhatRoundingLoses) {
  const std::unique_ptr<Model> plain = tiny_model(), aware = tiny_model();
  const auto of_plain = train_parameters(*plain, in_layers), of_aware = train_parameters(*aware, in_layers);
  prepare_qat(*aware, {.format = "int4"}, in_layers);
  train_steps(*plain, of_plain, 40, 1e-3);
  train_steps(*aware, of_aware, 40, 1e-3);
  prepare_qat(*plain, {.format = "int4"}, in_layers);
  EXPECT_LT(loss_of(*aware, text_batch()).mean(), loss_of(*plain, text_batch()).mean());
}

TEST(Qat, RefusesWhatCannotBe) {
  const std::unique_ptr<Model> model = tiny_model();
  const auto try_config = [&](const QatConfig& config) { prepare_qat(*model, config, in_layers); };
  expect_error(ErrorCode::invalid_argument, "is not a quantized one", [&] { try_config({.format = "bf16"}); });
  expect_error(ErrorCode::invalid_argument, "did you mean 'nf4'", [&] { try_config({.format = "nf5"}); });
  expect_error(ErrorCode::invalid_argument, "expected dynamic or observed",
               [&] { try_config({.activations = "static"}); });
  expect_error(ErrorCode::invalid_argument, "int8-dynamic alone", [&] { try_config({.activations = "observed"}); });
  expect_error(ErrorCode::invalid_argument, "no Linear layer",
               [&] { prepare_qat(*model, {}, [](std::string_view) { return false; }); });
  prepare_qat(*model, {.format = "nf4"}, in_layers);
  add_lora(*model, {.rank = 2, .dora = true}, in_layers);
  expect_error(ErrorCode::unsupported, "DoRA", [&] { logits_of(*model); });
}

TEST(Qat, RangesOfAModuleThatObservesNoneAreRefusedBeforeAnyIsSet) {
  const std::unique_ptr<Model> model = tiny_model();
  const auto modules = prepare_qat(*model, {.format = "int8-dynamic", .activations = "observed"}, in_layers);
  const ObservedRanges good = {{modules[0], {.low = -1, .high = 2}}, {modules[1], {.low = -3, .high = 4}}};
  restore_observed_ranges(*model, good);
  ObservedRanges bad = {{modules[0], {.low = -5, .high = 6}}, {"nowhere", {.low = 0, .high = 1}}};
  expect_error(ErrorCode::invalid_argument, "a range is given for nowhere, which observes none",
               [&] { restore_observed_ranges(*model, bad); });
  const ObservedRanges now = observed_ranges(*model);
  ASSERT_EQ(now.size(), 2u);
  for (const auto& [module, extent] : good) {
    EXPECT_EQ(now.at(module).low, extent.low) << module;
    EXPECT_EQ(now.at(module).high, extent.high) << module;
  }
  bad.erase("nowhere");
  restore_observed_ranges(*model, bad);
  EXPECT_EQ(observed_ranges(*model).size(), 1u) << "the others have observed nothing";
}

TEST(Qat, ObservedRangesAndRecomputedLayersDoNotGoTogether) {
  const std::unique_ptr<Model> model = tiny_model();
  prepare_qat(*model, {.format = "int8-dynamic", .activations = "observed"}, in_layers);
  const auto parameters = train_parameters(*model, in_layers);
  Tape tape = tape_for(parameters);
  tape.recompute_layers = true;
  expect_error(ErrorCode::unsupported, "observed activation ranges",
               [&] { add_gradients(*model, text_batch(), 11, tape); });
}

}  // namespace
}  // namespace nibble
