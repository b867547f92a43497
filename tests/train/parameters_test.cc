#include "train/parameters.h"

#include <gtest/gtest.h>

#include <set>

#include "models/harness.h"
#include "train/harness.h"

namespace nibble {
namespace {

using namespace nibble::test;

const std::string kTiny = NIBBLE_SOURCE_DIR "/tests/data/tiny-llama";

LabelledBatch some_batch() {
  LabelledBatch batch = {.ids = {5, 17, 9, 3, 24, 31, 12, 20, 33}, .lengths = {5, 4}};
  batch.labels = batch.ids;
  return batch;
}

bool is_projection(std::string_view module) { return module.ends_with("_proj"); }

std::set<std::string> names_of(const std::vector<TrainedParameter>& parameters) {
  std::set<std::string> names;
  for (const TrainedParameter& p : parameters) names.insert(p.name);
  return names;
}

TEST(TrainParameters, ShowsEveryTensorOfTheModelOnce) {
  const auto model = load(kTiny);
  const auto parameters = train_parameters(*model, [](std::string_view) { return true; });
  std::set<std::string> expected;
  const ModelFiles files = open_model(kTiny);
  for (const Parameter& p : list_parameters(files.config, kTiny)) expected.insert(p.name);
  EXPECT_EQ(names_of(parameters), expected);
  EXPECT_EQ(parameters.size(), expected.size());
}

TEST(TrainParameters, LeaveTheModelAsItWas) {
  const auto model = load(kTiny);
  const double before = loss_of(*model, some_batch()).sum;
  train_parameters(*model, [](std::string_view name) { return name.ends_with("norm.weight"); });
  EXPECT_EQ(loss_of(*model, some_batch()).sum, before);
}

// tiny-llama's head is tied. PEFT's modules_to_save train a copy of the table, which the head does not see.
TEST(TrainParameters, ATiedHeadFollowsOrStandsAlone) {
  struct Row {
    TiedHead tied_head;
    bool head_too;
    size_t parameters;
    bool same;
  };
  for (const Row& row : {Row{TiedHead::follows, false, 1, true}, Row{TiedHead::follows, true, 1, true},
                         Row{TiedHead::stands_alone, false, 1, false}, Row{TiedHead::stands_alone, true, 2, false}}) {
    const auto model = load(kTiny);
    const auto chosen = [&](std::string_view name) {
      return name == "model.embed_tokens.weight" || (row.head_too && name == "lm_head.weight");
    };
    const auto parameters = train_parameters(*model, chosen, row.tied_head);
    ASSERT_EQ(parameters.size(), row.parameters);
    const void* head = nullptr;
    for_each_linear(*model, [&](Linear& layer) {
      if (layer.name == "lm_head") head = std::get<Tensor>(layer.weight).raw();
    });
    EXPECT_EQ(parameters[0].value.raw() == head, row.same);
    if (row.parameters == 2) {
      EXPECT_EQ(parameters[1].value.raw(), head);
    }
  }
}

TEST(TrainParameters, RefusesQuantizedOnes) {
  const auto model = load(kTiny, {.format = &find_format("nf4")});
  expect_error(ErrorCode::unsupported, "is stored as nf4, only dense weights can be trained", [&] {
    train_parameters(*model, [](std::string_view name) { return name.ends_with("q_proj.weight"); });
  });
}

TEST(AddLora, ChangesNothingUntilItIsTrained) {
  const auto model = load(kTiny);
  const double before = loss_of(*model, some_batch()).sum;
  const auto parameters = add_lora(*model, {.rank = 4, .alpha = 8}, is_projection);
  EXPECT_EQ(loss_of(*model, some_batch()).sum, before);
  Tape tape = tape_for(parameters);
  add_gradients(*model, some_batch(), label_count(*model, some_batch()), tape);
  for (const TrainedParameter& p : parameters) {
    const bool is_b = p.name.ends_with("lora_B.weight");
    const Difference d = difference(floats(tape.gradient(p.value)), floats(tape.gradient(p.value)));
    EXPECT_EQ(d.scale > 0, is_b) << p.name;  // B is zero, so A's gradient is too
  }
}

TEST(AddLora, FirstValuesDependOnSeedAndNameAlone) {
  const auto one = load(kTiny), two = load(kTiny), other = load(kTiny);
  const auto a = add_lora(*one, {.seed = 1}, is_projection);
  const auto b = add_lora(*two, {.seed = 1}, [](std::string_view name) { return name.ends_with("down_proj"); });
  const auto c = add_lora(*other, {.seed = 2}, is_projection);
  const auto find = [](const std::vector<TrainedParameter>& list, const std::string& name) {
    for (const TrainedParameter& p : list) {
      if (p.name == name) return floats(p.value);
    }
    return std::vector<float>{};
  };
  const std::string name = "model.layers.0.mlp.down_proj.lora_A.weight";
  const std::vector<float> values = find(a, name);
  ASSERT_FALSE(values.empty());
  EXPECT_EQ(values, find(b, name));
  EXPECT_NE(values, find(c, name));
  const double bound = 1 / std::sqrt(static_cast<double>(values.size()) / 8);
  const Difference d = difference(values, values);
  EXPECT_LE(d.scale, bound);
  EXPECT_GT(d.scale, 0.9 * bound);
}

TEST(AddLora, RefusesWhatMakesNoSense) {
  const auto model = load(kTiny);
  expect_error(ErrorCode::invalid_argument, "lora rank: found 0",
               [&] { add_lora(*model, {.rank = 0}, is_projection); });
  expect_error(ErrorCode::invalid_argument, "lora dropout: found 1.0",
               [&] { add_lora(*model, {.dropout = 1.0f}, is_projection); });
  expect_error(ErrorCode::invalid_argument, "no Linear layer of the model is chosen",
               [&] { add_lora(*model, {}, [](std::string_view) { return false; }); });
}

// The gradient through quantized weights is that through the dense weights they stand for, bit for bit.
TEST(AddLora, QuantizedBaseTrainsLikeItsDecodedWeights) {
  class Decode final : public ParameterVisitor {
   public:
    void linear(Linear& layer) override { layer.weight = decode(layer.weight); }
    void embedding(Embedding&) override {}
    void vector(const std::string&, Tensor&) override {}
  } decode_all;
  std::vector<std::vector<float>> gradients[2];
  for (const bool decoded : {false, true}) {
    const auto model = load(kTiny, {.format = &find_format("nf4")});
    if (decoded) model->visit(decode_all);
    const auto parameters = add_lora(*model, {.rank = 4}, is_projection);
    Tape tape = tape_for(parameters);
    add_gradients(*model, some_batch(), label_count(*model, some_batch()), tape);
    for (const Tensor& g : gradients_by(tape, parameters)) gradients[decoded].push_back(floats(g));
  }
  EXPECT_EQ(gradients[0], gradients[1]);
}

TEST(Gradients, BatchesThatDoNotFitAreRefused) {
  const auto model = load(kTiny);
  LabelledBatch batch = some_batch();
  batch.labels.pop_back();
  expect_error(ErrorCode::invalid_argument, "found 8 labels, expected 9", [&] { loss_of(*model, batch); });
  batch = some_batch();
  batch.lengths = {5, 5};
  expect_error(ErrorCode::invalid_argument, "do not add up", [&] { loss_of(*model, batch); });
}

}  // namespace
}  // namespace nibble
