// Gradients of every parameter against torch, and what must not change any bit of them.
#include <gtest/gtest.h>

#include <set>

#include "core/parallel.h"
#include "train/harness.h"

namespace nibble {
namespace {

using namespace nibble::test;

bool all(std::string_view) { return true; }

// A key's bias, where nothing rotates it, moves all scores of a query alike, which softmax does not see: what is left
// is rounding. Of the models here OPT alone calls it k_proj.
bool is_zero_in_exact_arithmetic(const std::string& name) {
  return name.ends_with("self.key.bias") || name.ends_with("self_attn.k_proj.bias");
}

class GradientGolden : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string name = GetParam(), folder = golden_model(name).string();
    const bool is_bundled = !folder.starts_with(shared_folder().string());
    const std::string results =
        is_bundled ? folder + "/golden.safetensors" : "goldens/gradients/" + name + ".safetensors";
    NIBBLE_NEED_SHARED(results);
    model_ = load(folder);
    for (const Parameter& p : list_parameters(open_model(folder).config, folder)) {
      if (p.orientation == Orientation::in_out) turned_.insert("grad." + p.name);
    }
    parameters_ = train_parameters(*model_, all);
    golden_.emplace(shared_folder() / results);
    batch_ = read_batch(*golden_, "batch.");
  }

  std::vector<Tensor> run(bool recompute) {
    Tape tape = tape_for(parameters_);
    tape.recompute_layers = recompute;
    loss_ = add_gradients(*model_, batch_, label_count(*model_, batch_), tape);
    return gradients_by(tape, parameters_);
  }

  std::unique_ptr<Model> model_;
  std::set<std::string> turned_;  // the files hold these as [in, out]
  std::vector<TrainedParameter> parameters_;
  std::optional<SafetensorsFile> golden_;
  LabelledBatch batch_;
  Loss loss_;
};

// torch's own float32 gradients are within 3e-6 of its float64 ones, relative to each tensor's largest element. Some
// gradients are tiny, so nothing is asked of less than 1e-4 of the largest gradient of all.
TEST_P(GradientGolden, LossAndGradientsOfAllParameters) {
  const std::vector<Tensor> gradients = run(false);
  EXPECT_NEAR(loss_.mean(), golden_->load("loss").f32()[0], 1e-5);
  EXPECT_NEAR(loss_.mean(), loss_of(*model_, batch_).mean(), 1e-6);
  double floor = 0;
  for (const Tensor& g : gradients) floor = std::max(floor, 1e-4 * difference(floats(g), floats(g)).scale);
  int compared = 0;
  for (size_t i = 0; i < gradients.size(); ++i) {
    const std::string name = "grad." + parameters_[i].name;
    if (!golden_->find(name)) continue;  // qwen3: only attention and norms are there
    ++compared;
    if (is_zero_in_exact_arithmetic(name)) continue;
    const Tensor expected = golden_->load(name);
    ASSERT_FALSE(gradients[i].empty()) << name;
    const Tensor gradient = turned_.count(name) ? gradients[i].transposed() : gradients[i];
    const Difference d = difference(floats(gradient), floats(expected));
    EXPECT_LE(d.largest / std::max(d.scale, floor), 2e-5) << name;
  }
  int expected_count = 0;
  for (const auto& tensor : golden_->entries()) expected_count += tensor.name.starts_with("grad.");
  EXPECT_EQ(compared, expected_count);
}

TEST_P(GradientGolden, ThreadsAndRecomputedLayersChangeNoBit) {
  const std::vector<Tensor> gradients = run(false);
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    const std::vector<Tensor> again = run(threads == 3);
    set_thread_count(0);
    for (size_t i = 0; i < gradients.size(); ++i) {
      EXPECT_EQ(floats(gradients[i]), floats(again[i])) << parameters_[i].name << ", " << threads << " threads";
    }
  }
}

/// One sequence of a batch.
LabelledBatch sequence(const LabelledBatch& batch, size_t index) {
  size_t first = 0;
  for (size_t i = 0; i < index; ++i) first += static_cast<size_t>(batch.lengths[i]);
  const auto begin = static_cast<int64_t>(first), end = begin + batch.lengths[index];
  const bool per_token = batch.labels.size() == batch.ids.size();
  LabelledBatch one = {.ids = {batch.ids.begin() + begin, batch.ids.begin() + end}, .lengths = {end - begin}};
  one.labels = per_token ? std::vector<int32_t>{batch.labels.begin() + begin, batch.labels.begin() + end}
                         : std::vector<int32_t>{batch.labels[index]};
  return one;
}

// Sequences do not see each other, and a label weighs the same wherever it stands.
TEST_P(GradientGolden, SequencesOneByOneGiveTheGradientOfTheBatch) {
  const std::vector<Tensor> together = run(false);
  const int64_t total = label_count(*model_, batch_);
  Tape tape = tape_for(parameters_);
  double sum = 0;
  for (size_t i = 0; i < batch_.lengths.size(); ++i)
    sum += add_gradients(*model_, sequence(batch_, i), total, tape).sum;
  EXPECT_NEAR(sum, loss_.sum, 1e-5 * sum);
  double largest = 0;
  for (const Tensor& g : together) largest = std::max(largest, difference(floats(g), floats(g)).scale);
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Difference d = difference(floats(tape.gradient(parameters_[i].value)), floats(together[i]));
    // The whole batch is multiplied in another order: 1.3e-6 measured.
    EXPECT_LE(d.largest, 2e-6 * largest) << parameters_[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GradientGolden,
                         ::testing::Values("llama", "gpt2", "bert", "qwen3", "opt", "opt-projected"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace nibble
