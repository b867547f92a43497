// The table of preferences, its reasons, and the measurement behind --measure.
#include "nibble/recommend.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "nibble/bitsandbytes_config.h"
#include "nibble/evaluate.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr uint64_t kGigabyte = 1'000'000'000;

RecommendOptions in(uint64_t gigabytes, RecommendOptions options = {}) {
  options.memory = gigabytes * kGigabyte;
  return options;
}

std::string chosen(const std::string& model, const RecommendOptions& options) {
  return recommend(model, options).choice.label();
}

bool says(const Recommendation& r, const std::string& fragment) {
  return std::any_of(r.reasons.begin(), r.reasons.end(),
                     [&](const std::string& line) { return line.find(fragment) != std::string::npos; });
}

TEST(Recommend, FollowsTheDecisionTree) {
  EXPECT_EQ(chosen("llama-2-7b", in(64)), "int8");
  EXPECT_EQ(chosen("llama-2-7b", in(64, {.device = Device::edge})), "nf4 + double quant");
  EXPECT_EQ(chosen("llama-2-7b", in(64, {.accuracy = AccuracyWish::best})), "fp16");
  EXPECT_EQ(chosen("llama-2-7b", in(64, {.accuracy = AccuracyWish::smallest})), "nf4 + double quant");
  EXPECT_EQ(chosen("llama-3.2-1b", in(64, {.goal = Goal::finetune, .context = 512})), "lora over bf16");
  EXPECT_EQ(chosen("llama-2-7b", in(64, {.goal = Goal::finetune, .context = 512})), "qlora over nf4");
  EXPECT_EQ(chosen("llama-3.2-1b", in(64, {.goal = Goal::train, .context = 512})), "full training in fp32");
}

TEST(Recommend, TakesTheFirstThatFits) {
  EXPECT_EQ(chosen("llama-2-7b", in(10, {.context = 2048})), "int8");
  EXPECT_EQ(chosen("llama-2-7b", in(8, {.context = 2048})), "nf4 + double quant");
  EXPECT_EQ(chosen("llama-2-7b", in(9, {.goal = Goal::finetune, .context = 512})), "qlora over nf4");
  EXPECT_EQ(chosen("llama-2-7b", in(8, {.goal = Goal::finetune, .context = 512})), "qlora over nf4, checkpointing");
  for (const uint64_t memory : {6, 8, 12, 20, 40}) {
    const Recommendation r = recommend("llama-2-7b", in(memory, {.accuracy = AccuracyWish::best, .context = 1024}));
    EXPECT_EQ(r.fits, r.choice.plan.total_bytes <= memory * kGigabyte);
    ASSERT_TRUE(r.fits) << memory;
    // Everything preferred to the choice is too large.
    for (const Candidate& other : r.alternatives) {
      if (*other.expected_kl < *r.choice.expected_kl && other.plan.format != "int8-dynamic") {
        EXPECT_GT(other.plan.total_bytes, memory * kGigabyte) << other.label();
      }
    }
  }
  const Recommendation none = recommend("llama-2-70b", in(8));
  EXPECT_FALSE(none.fits);
  EXPECT_TRUE(says(none, "take a smaller model"));
}

TEST(Recommend, TheLargestLossCanBeGiven) {
  EXPECT_EQ(chosen("llama-2-7b", in(64, {.max_kl = 0.25})), "nf4 + double quant");
  EXPECT_EQ(chosen("llama-2-7b", in(64, {.max_kl = 0.05})), "int8");
  EXPECT_EQ(chosen("llama-2-7b", in(64, {.max_kl = 0.001})), "fp16");
}

TEST(Recommend, ContradictsAdviceThatIsNotSound) {
  const Recommendation int8 = recommend("llama-2-7b", in(64));
  EXPECT_FALSE(int8.choice.configuration.double_quant);
  EXPECT_TRUE(says(int8, "no double quantization with 8 bits"));
  EXPECT_TRUE(says(int8, "5.4 MB of 7.01 GB"));  // one f32 per row of 224 matrices
  const Recommendation edge = recommend("llama-2-7b", in(64, {.device = Device::edge}));
  EXPECT_TRUE(says(edge, "nf4, not int4"));
  EXPECT_EQ(edge.choice.compute_dtype, DType::f32);
  EXPECT_TRUE(says(edge, "fp16 can overflow"));
  const Recommendation gpu = recommend("llama-2-7b", in(8, {.device = Device::gpu, .context = 2048}));
  EXPECT_EQ(gpu.choice.compute_dtype, DType::bf16);
  EXPECT_TRUE(says(gpu, "never fp16"));
  EXPECT_TRUE(says(gpu, "those of nibble on a CPU"));
}

TEST(Recommend, EverySituationHasAChoiceWithReasonsAndAlternatives) {
  for (const Goal goal : {Goal::inference, Goal::finetune, Goal::train}) {
    for (const Device device : {Device::server, Device::edge, Device::gpu}) {
      for (const AccuracyWish accuracy : {AccuracyWish::best, AccuracyWish::balanced, AccuracyWish::smallest}) {
        for (const char* model : {"smollm2-135m", "llama-2-7b", "bert-base"}) {
          const Recommendation r =
              recommend(model, in(8, {.goal = goal, .device = device, .accuracy = accuracy, .context = 256}));
          EXPECT_GE(r.reasons.size(), 2u) << model;
          EXPECT_GE(r.alternatives.size(), 2u) << model;
          for (const Candidate& other : r.alternatives) EXPECT_FALSE(other.remark.empty()) << other.label();
        }
      }
    }
  }
}

TEST(Recommend, SnippetsSayWhatWasChosen) {
  const Candidate nf4 = recommend("llama-2-7b", in(64, {.device = Device::edge})).choice;
  EXPECT_EQ(nf4.flags(), "--format nf4 --double-quant --compute-dtype fp32");
  EXPECT_EQ(nf4.cpp_snippet(),
            "nibble::BitsAndBytesConfig config{.load_in_4bit = true,\n"
            "                                  .bnb_4bit_compute_dtype = nibble::DType::f32,\n"
            "                                  .bnb_4bit_quant_type = \"nf4\",\n"
            "                                  .bnb_4bit_use_double_quant = true};");
  EXPECT_EQ(nf4.python_snippet(),
            "BitsAndBytesConfig(load_in_4bit=True,\n"
            "                   bnb_4bit_compute_dtype=torch.float32,\n"
            "                   bnb_4bit_quant_type=\"nf4\",\n"
            "                   bnb_4bit_use_double_quant=True)");
  // The same members as the snippet's are a valid configuration.
  const BitsAndBytesConfig config{.load_in_4bit = true,
                                  .bnb_4bit_compute_dtype = DType::f32,
                                  .bnb_4bit_quant_type = "nf4",
                                  .bnb_4bit_use_double_quant = true};
  config.validate();
  EXPECT_EQ(recommend("llama-2-7b", in(64)).choice.python_snippet(), "BitsAndBytesConfig(load_in_8bit=True)");
  EXPECT_EQ(recommend("llama-2-7b", in(64, {.accuracy = AccuracyWish::best})).choice.python_snippet(),
            "dict(dtype=torch.float16)");
  EXPECT_EQ(recommend("llama-2-7b", in(8, {.goal = Goal::finetune, .context = 512})).choice.flags(),
            "--format nf4 --compute-dtype fp32 --method qlora --lora-r 16 --target-modules all-linear --optimizer "
            "adamw --gradient-checkpointing");
}

TEST(Recommend, MeasuresOnTheUsersModelAndText) {
  const std::string text = (tiny_folder() / "heldout.txt").string();
  RecommendOptions options = in(8, {.context = 64});
  options.measure_text = text;
  options.measure_tokens = 512;
  options.measure_context = 128;
  const Recommendation r = recommend(tiny_folder().string(), options);
  ASSERT_TRUE(r.choice.measured.has_value());
  std::vector<Candidate> all = r.alternatives;
  all.insert(all.begin(), r.choice);
  // Ranked by KL per byte saved, the original, which saves nothing, last.
  for (size_t i = 1; i < all.size(); ++i) {
    if (!all[i].measured) continue;
    EXPECT_LE(all[i - 1].measured->kl_per_gigabyte_saved, all[i].measured->kl_per_gigabyte_saved);
  }
  EXPECT_FALSE(all.back().measured.has_value());
  const MeasuredLoss& m = *r.choice.measured;
  const CausalLM model = load(tiny_folder(), {.format = r.choice.plan.format});
  const EvaluateOptions evaluation = {.context = 128, .max_tokens = 512};
  const EvaluateReport expected =
      evaluate(model, &tiny(), evaluation_chunks(tiny(), heldout(), evaluation), evaluation);
  EXPECT_EQ(m.kl_mean, expected.kl_mean);
  EXPECT_EQ(m.perplexity, expected.perplexity);
  EXPECT_EQ(m.bytes, expected.bytes);
  EXPECT_TRUE(says(r, "measured on your text: KL"));
  // With a limit below what any format reaches, the original is all that is left.
  options.max_kl = 0.0;
  EXPECT_EQ(recommend(tiny_folder().string(), options).choice.label(), "bf16");
}

TEST(Recommend, RefusesWhatMeansNothing) {
  expect_error(ErrorCode::invalid_argument, "only inference can be measured",
               [] { recommend("llama-2-7b", {.goal = Goal::finetune, .measure_text = "x"}); });
  RecommendOptions limited = in(10, {.max_kl = 0.001});
  limited.context = 2048;
  const Recommendation above = recommend("llama-2-7b", limited);
  const auto says = [](const std::string& reason) { return reason.find("nothing that fits stays below") == 0; };
  EXPECT_TRUE(std::any_of(above.reasons.begin(), above.reasons.end(), says));
  expect_error(ErrorCode::invalid_argument, "max_kl: is about inference",
               [] { recommend("llama-2-7b", {.goal = Goal::finetune, .max_kl = 0.1}); });
  expect_error(ErrorCode::invalid_argument, "max_kl: found -1", [] { recommend("llama-2-7b", {.max_kl = -1.0}); });
  expect_error(ErrorCode::invalid_argument, "device: found 'phone', expected one of server, edge, gpu",
               [] { parse_device("phone"); });
}

}  // namespace
}  // namespace nibble
