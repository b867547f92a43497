// Whole training runs against PEFT, torch and bitsandbytes: loss, gradient norm and learning rate of every step, the
// first gradients, and the adapter at the end.
#include <gtest/gtest.h>

#include "train/harness.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace nibble {
namespace {

using namespace nibble::test;

const std::string kAdapterPrefix = "base_model.model.";

double number_or(const Json& object, const std::string& key, double fallback) {
  const Json* value = object.find_value(key);
  return value ? value->as_double(key) : fallback;
}

/// The adapter's own values where add_lora() has put random ones.
void fill(const std::vector<TrainedParameter>& parameters, const SafetensorsFile& adapter) {
  for (const TrainedParameter& p : parameters) {
    const Tensor from = adapter.load(kAdapterPrefix + p.name);
    ASSERT_EQ(from.shape, p.value.shape) << p.name;
    Tensor to = p.value;
    std::copy_n(from.f32(), from.count(), to.f32());
  }
}

struct Run {
  const char* name;
  double loss_tolerance = 1e-4, norm_tolerance = 1e-3;  // absolute, relative
};

class Trace : public ::testing::TestWithParam<Run> {
 protected:
  void SetUp() override {
    NIBBLE_NEED_SHARED("goldens/training");
    const std::string at = "goldens/training/" + std::string(GetParam().name);
    golden_ = shared_json(at + ".json");
    tensors_.emplace(shared_folder() / (at + ".safetensors"));
    settings_ = golden_.find("settings");
    model_ = load((shared_folder() / "goldens" / text_at(*settings_, "base")).string());
    lora_ = settings_->find_value("lora");
    parameters_ = lora_ ? add_adapters() : train_parameters(*model_, [](std::string_view) { return true; });
    if (lora_) fill(parameters_, SafetensorsFile(shared_folder() / (at + "-init/adapter_model.safetensors")));
  }

  std::vector<TrainedParameter> add_adapters() {
    std::vector<std::string> targets;
    for (const Json& target : lora_->find("target_modules")->as_array("")) targets.push_back(target.as_string(""));
    const LoraOptions options = {.rank = int_at(*lora_, "r"),
                                 .alpha = static_cast<float>(int_at(*lora_, "lora_alpha")),
                                 .rslora = lora_->find_value("use_rslora") != nullptr,
                                 .dora = lora_->find_value("use_dora") != nullptr};
    return add_lora(*model_, options, [targets](std::string_view module) {
      return std::any_of(targets.begin(), targets.end(),
                         [&](const std::string& target) { return module.ends_with("." + target); });
    });
  }

  std::vector<LabelledBatch> read_batches() const {
    const int64_t count = int_at(*settings_->find("batches"), "count");
    std::vector<LabelledBatch> batches;
    for (int64_t k = 0; k < count; ++k) batches.push_back(read_batch(*tensors_, "batch." + std::to_string(k) + "."));
    return batches;
  }

  OptimizerOptions optimizer_options() const {
    OptimizerOptions options = {.weight_decay = number_or(*settings_, "weight_decay", 0)};
    options.eps = number_or(*settings_, "eps", 1e-8);
    if (settings_->find_value("optimizer")) options.name = text_at(*settings_, "optimizer");
    if (const Json* betas = settings_->find_value("betas")) {
      options.beta1 = betas->as_array("betas")[0].as_double("betas");
      options.beta2 = betas->as_array("betas")[1].as_double("betas");
    }
    return options;
  }

  void expect_first_gradients(const std::vector<Tensor>& gradients) const {
    for (size_t i = 0; i < gradients.size(); ++i) {
      const std::string name = "grad0." + kAdapterPrefix + parameters_[i].name;
      if (!tensors_->find(name)) continue;
      EXPECT_LE(difference(floats(gradients[i]), floats(tensors_->load(name))).largest, 1e-4) << name;
    }
  }

  Json golden_;
  const Json *settings_ = nullptr, *lora_ = nullptr;
  std::optional<SafetensorsFile> tensors_;
  std::unique_ptr<Model> model_;
  std::vector<TrainedParameter> parameters_;
};

TEST_P(Trace, EqualsTheReference) {
  const std::vector<LabelledBatch> batches = read_batches();
  const Schedule schedule = {.shape = parse_schedule(text_at(*settings_, "schedule")),
                             .warmup = int_at(*settings_, "warmup"),
                             .steps = int_at(*settings_, "steps")};
  const auto micro = static_cast<size_t>(number_or(*settings_, "accumulate", 1));
  const double max_norm = number_or(*settings_, "max_grad_norm", 0), rate = number_or(*settings_, "lr", 0);
  Optimizer optimizer(parameters_, optimizer_options());
  for (const Json& expected : golden_.find("trace")->as_array("trace")) {
    const auto step = static_cast<size_t>(optimizer.steps());
    int64_t total = 0;
    double sum = 0;
    for (size_t j = 0; j < micro; ++j) total += label_count(*model_, batches[(step * micro + j) % batches.size()]);
    Tape tape = tape_for(parameters_);
    for (size_t j = 0; j < micro; ++j) {
      sum += add_gradients(*model_, batches[(step * micro + j) % batches.size()], total, tape).sum;
    }
    std::vector<Tensor> gradients = gradients_by(tape, parameters_);
    if (step == 0) expect_first_gradients(gradients);
    const double norm = gradient_norm(gradients), lr = rate * schedule_factor(schedule, static_cast<int64_t>(step));
    EXPECT_EQ(total, int_at(expected, "tokens")) << step;
    EXPECT_NEAR(lr, number_or(expected, "lr", -1), 1e-12) << step;
    EXPECT_NEAR(sum / static_cast<double>(total), number_or(expected, "loss", 0), GetParam().loss_tolerance) << step;
    EXPECT_NEAR(norm / number_or(expected, "grad_norm", 0), 1, GetParam().norm_tolerance) << step;
    if (max_norm > 0) clip_gradients(gradients, norm, max_norm);
    optimizer.step(gradients, lr);
  }
}

INSTANTIATE_TEST_SUITE_P(Runs, Trace,
                         ::testing::Values(Run{"llama-lora-linear"}, Run{"llama-lora-cosine"},
                                           Run{"llama-lora-accumulate"}, Run{"llama-qlora-nf4"},
                                           Run{"llama-qlora-nf4-dq"}, Run{"llama-int8-lora"}, Run{"llama-dora"},
                                           Run{"gpt2-lora"}, Run{"bert-full"}, Run{"bert-full-adamw8bit"}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace nibble
