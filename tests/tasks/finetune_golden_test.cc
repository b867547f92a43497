// Runs whose results are known: those of the reference traces, and those that change nothing.
#include <gtest/gtest.h>

#include "nibble/finetune.h"
#include "support/goldens.h"
#include "tasks/training_log.h"
#include "train/harness.h"

namespace nibble {
namespace {

using namespace nibble::test;
namespace fs = std::filesystem;

// Names of the source, its shapes and dtypes, and its values as far as its dtype can tell, whatever models hold.
TEST(FullFinetune, WritesWhatItRead) {
  NIBBLE_NEED_SHARED("goldens/models");
  for (const char* name : {"gemma2", "gemma3", "gpt2", "llama-tied", "opt", "opt-projected", "qwen2"}) {
    const TempFolder temp;
    const fs::path model = golden_model(name);
    const FinetuneOptions o = {.method = "full",
                               .data = temp.write("d.jsonl", R"({"input_ids": [5, 17, 9, 3]})").string(),
                               .steps = 1,
                               .learning_rate = 1e-30};
    finetune(model.string(), (temp / "out").string(), o);
    const ModelFiles before = open_model(model.string()), after = open_model((temp / "out").string());
    ASSERT_EQ(before.weights->tensors().size(), after.weights->tensors().size()) << name;
    for (const SourceTensor& tensor : before.weights->tensors()) {
      const SourceTensor* found = after.weights->find(tensor.name);
      ASSERT_NE(found, nullptr) << tensor.name;
      EXPECT_EQ(found->shape, tensor.shape) << tensor.name;
      EXPECT_EQ(found->format, tensor.format) << tensor.name;
      const Difference d = difference(floats(decode(after.weights->load(tensor.name))),
                                      floats(decode(before.weights->load(tensor.name))));
      EXPECT_LE(d.largest, 1e-6) << name << " " << tensor.name;
    }
  }
}

// f32 sums in another order than torch's, over at most 12 steps: losses and lengths of gradients have differed by up to
// 3e-6. A value that was trained moves by the rate whatever its gradient is long, so where that is next to nothing
// rounding shows: 1.0e-4 has been seen, with AVX2, at a rate of 2e-3.
constexpr double kSameRun = 1e-5, kSameValue = 2e-4;

// The runs of trace_golden_test.cc, through data files and the folder of the first adapter.
class FinetuneGolden : public ::testing::TestWithParam<const char*> {};

/// The batches of a reference run as lines of data.
std::string lines_of(const SafetensorsFile& tensors, int64_t batches) {
  std::string lines;
  const auto list = [](const auto& from, size_t begin, size_t count) {
    Json array = Json::array();
    for (size_t i = begin; i < begin + count; ++i) array.push_back(int64_t{from[i]});
    return array;
  };
  for (int64_t k = 0; k < batches; ++k) {
    const LabelledBatch batch = read_batch(tensors, "batch." + std::to_string(k) + ".");
    size_t first = 0;
    for (size_t i = 0; i < batch.lengths.size(); ++i) {
      const auto length = static_cast<size_t>(batch.lengths[i]);
      const bool per_token = batch.labels.size() == batch.ids.size();
      const Json labels = per_token ? list(batch.labels, first, length) : Json(int64_t{batch.labels[i]});
      lines += Json::object({{"input_ids", list(batch.ids, first, length)}, {"labels", labels}}).dump() + "\n";
      first += length;
    }
  }
  return lines;
}

double setting(const Json& settings, const char* key, double fallback) {
  const Json* value = settings.find_value(key);
  return value ? value->as_double(key) : fallback;
}

/// The options of a reference run, except for its data.
FinetuneOptions options_of(const Json& s, const std::string& name) {
  FinetuneOptions o;
  o.method = s.find("lora") == nullptr ? "full" : s.find("kbit") ? "qlora" : "lora";
  if (name.find("int8") != std::string::npos) o.format = "int8";
  if (o.method != "full") o.init_adapter = (shared_folder() / ("goldens/training/" + name + "-init")).string();
  o.batch = int_at(*s.find("batches"), "size");
  o.grad_accum = static_cast<int64_t>(setting(s, "accumulate", 1));
  o.steps = int_at(s, "steps");
  o.shuffle = false;
  o.learning_rate = setting(s, "lr", 0);
  o.schedule = text_at(s, "schedule");
  o.warmup = setting(s, "warmup", 0);
  o.weight_decay = setting(s, "weight_decay", 0);
  o.max_grad_norm = setting(s, "max_grad_norm", 0);
  o.epsilon = setting(s, "eps", 1e-8);
  if (s.find("optimizer")) o.optimizer = text_at(s, "optimizer");
  if (const Json* betas = s.find_value("betas")) o.beta2 = betas->as_array("betas")[1].as_double("betas");
  return o;
}

TEST_P(FinetuneGolden, EveryStepEqualsTheReference) {
  NIBBLE_NEED_SHARED("goldens/training");
  const std::string at = "goldens/training/" + std::string(GetParam());
  const Json golden = shared_json(at + ".json");
  const Json& s = *golden.find("settings");
  const SafetensorsFile tensors(shared_folder() / (at + ".safetensors"));
  const TempFolder temp;
  FinetuneOptions o = options_of(s, GetParam());
  o.data = temp.write("d.jsonl", lines_of(tensors, int_at(*s.find("batches"), "count"))).string();
  finetune((shared_folder() / "goldens" / text_at(s, "base")).string(), (temp / "out").string(), o);
  const std::vector<Json> log = read_log(temp / "out");
  const Json::Array& trace = golden.find("trace")->as_array("trace");
  ASSERT_EQ(log.size(), trace.size());
  for (size_t i = 0; i < trace.size(); ++i) {
    EXPECT_EQ(int_at(log[i], "step"), int_at(trace[i], "step"));
    EXPECT_EQ(int_at(log[i], "tokens"), int_at(trace[i], "tokens")) << i;
    EXPECT_NEAR(number(log[i], "learning_rate"), number(trace[i], "lr"), 1e-12) << i;
    EXPECT_NEAR(number(log[i], "loss"), number(trace[i], "loss"), kSameRun) << i;
    EXPECT_NEAR(number(log[i], "grad_norm") / number(trace[i], "grad_norm"), 1, kSameRun) << i;
  }
  if (o.method == "full") return;
  const SafetensorsFile ours(temp / "out/adapter_model.safetensors");
  const SafetensorsFile theirs(shared_folder() / (at + "-final/adapter_model.safetensors"));
  ASSERT_EQ(ours.entries().size(), theirs.entries().size());
  for (const SafetensorsEntry& entry : theirs.entries()) {
    EXPECT_LE(difference(floats(ours.load(entry.name)), floats(theirs.load(entry.name))).largest, kSameValue)
        << entry.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Runs, FinetuneGolden,
                         ::testing::Values("llama-lora-linear", "llama-lora-cosine", "llama-lora-accumulate",
                                           "llama-qlora-nf4", "llama-qlora-nf4-dq", "llama-int8-lora", "llama-dora",
                                           "gpt2-lora", "bert-full", "bert-full-adamw8bit"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace nibble
