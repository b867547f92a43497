// The output head in another format for running: what changes and what does not.
#include <gtest/gtest.h>

#include <cmath>

#include "nibble/classify.h"
#include "nibble/evaluate.h"
#include "ops/linear_observer.h"
#include "support/tiny_encoder.h"
#include "tasks/loaded_model.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

/// The bundled model, whose head is tied to the embedding, or with a head of its own (the same values).
std::filesystem::path folder_of(const TempFolder& to, bool tied) {
  if (tied) return tiny_folder();
  const SafetensorsFile in(tiny_folder() / "model.safetensors");
  Json config = Json::parse_file((tiny_folder() / "config.json").string());
  config.set("tie_word_embeddings", false);
  const auto folder = tiny_variant(to, "untied", {{"model.safetensors", ""}, {"config.json", config.dump()}});
  std::vector<TensorDeclaration> declared;
  for (const SafetensorsEntry& e : in.entries()) declared.push_back({e.name, DType::bf16, e.shape});
  const SafetensorsEntry& embedding = *in.find("model.embed_tokens.weight");
  declared.push_back({"lm_head.weight", DType::bf16, embedding.shape});
  SafetensorsWriter out(folder / "model.safetensors", declared);
  for (const SafetensorsEntry& e : in.entries()) out.write(e.name, in.load(e.name));
  out.write("lm_head.weight", in.load(embedding.name));
  out.finish();
  return folder;
}

Tensor hidden_of(const CausalLM& model, const std::vector<int32_t>& ids) {
  return model.internal().model->hidden({.ids = ids}, nullptr, nullptr);
}

TEST(Head, IsEncodedAndTheEmbeddingIsNot) {
  const std::vector<int32_t> ids = {1, 40, 7, 300, 22};
  const TempFolder to;
  for (const bool tied : {true, false}) {
    const auto folder = folder_of(to, tied);
    const CausalLM keep = load(folder);
    const Shape shape = {keep.vocab_size(), hidden_of(keep, ids).cols()};
    for (const auto& [head, format] : {std::pair("nf4", "nf4"), {"int8", "int8-dynamic"}}) {
      const CausalLM model = load(folder, {.head = head});
      const Tensor hidden = hidden_of(model, ids);
      const Tensor expected = hidden_of(keep, ids);
      EXPECT_EQ(std::vector<float>(hidden.f32(), hidden.f32() + hidden.count()),
                std::vector<float>(expected.f32(), expected.f32() + expected.count()));
      const uint64_t encoded = weight_bytes(layout(shape, DType::f32, find_format(format), {}));
      const uint64_t dense = tied ? 0 : static_cast<uint64_t>(shape[0] * shape[1]) * 2;
      EXPECT_EQ(model.weight_bytes(), keep.weight_bytes() + encoded - dense) << head;
      const std::vector<float> kept = keep.logits(ids), logits = model.logits(ids);
      double error = 0, size = 0;
      for (size_t i = 0; i < kept.size(); ++i) {
        error += std::pow(logits[i] - kept[i], 2);
        size += std::pow(kept[i], 2);
      }
      // nf4 loses about a tenth of a Gaussian matrix, 8 bits below a hundredth.
      EXPECT_LT(std::sqrt(error / size), head == std::string("nf4") ? 0.2 : 0.01) << head;
      EXPECT_GT(error, 0) << head;
    }
  }
}

// Nothing happens to the activations: logits are the hidden states times the decoded head.
TEST(Head, InEightBitsLeavesTheActivationsAsTheyAre) {
  const CausalLM model = load(tiny_folder(), {.head = "int8"});
  const Tensor hidden = hidden_of(model, {1, 40, 7});
  Linear head;
  Tensor logits;
  {
    const LinearObserver observer([&](const LinearCall& call) { head = call.layer; });
    logits = model.internal().model->logits(hidden);
  }
  const Tensor w = decode(head.weight);
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t r = 0; r < w.rows(); ++r) {
      double exact = 0, magnitude = 0;
      for (int64_t k = 0; k < w.cols(); ++k) {
        const double product = double{hidden.f32()[t * w.cols() + k]} * double{w.f32()[r * w.cols() + k]};
        exact += product;
        magnitude += std::fabs(product);
      }
      // The sum in any order, and a rounding each of the decoded weight and of the scaled sum.
      const double bound = static_cast<double>(w.cols() + 3) * 0x1p-24 * magnitude;
      ASSERT_NEAR(double{logits.f32()[t * w.rows() + r]}, exact, bound) << t << " " << r;
    }
  }
}

TEST(Head, ShowsUpInTheProfile) {
  for (const char* head : {"nf4", "int8"}) {
    const Generation g = load(tiny_folder(), {.head = head}).generate("She", {.max_tokens = 4, .profile = true});
    const std::string name = std::string("head ") + head;
    EXPECT_TRUE(std::any_of(g.decode_profile.begin(), g.decode_profile.end(),
                            [&](const OperationTime& row) { return row.name == name && row.bytes > 0; }));
  }
}

TEST(Head, CostsWhatEvaluateSays) {
  const CausalLM keep = load(tiny_folder());
  const auto chunks = evaluation_chunks(keep, heldout(), {.context = 64, .max_tokens = 512});
  const double nf4 = evaluate(load(tiny_folder(), {.head = "nf4"}), &keep, chunks, {.context = 64}).kl_mean;
  const double int8 = evaluate(load(tiny_folder(), {.head = "int8"}), &keep, chunks, {.context = 64}).kl_mean;
  EXPECT_GT(int8, 0);
  EXPECT_GT(nf4, 10 * int8);
}

// Bodies are the same, so against the original kept whole both ways to say it are one.
TEST(Head, CostsTheSameAloneAsAgainstItsReference) {
  const CausalLM keep = load(tiny_folder(), {.format = "nf4", .activations = "fp32"});
  const CausalLM model = load(tiny_folder(), {.format = "nf4", .activations = "fp32", .head = "nf4"});
  const EvaluateOptions options = {.context = 64, .max_tokens = 512, .head_cost = true};
  const auto chunks = evaluation_chunks(keep, heldout(), options);
  const EvaluateReport expected = evaluate(model, &keep, chunks, options);
  EXPECT_GT(expected.kl_mean, 0);
  const EvaluateReport alone = evaluate(model, nullptr, chunks, options);
  const EvaluateReport against_original = evaluate(model, &tiny(), chunks, options);
  for (const EvaluateReport& report : {alone, against_original}) {
    for (const char* name : {"perplexity_increase", "kl_mean", "top1_agreement"}) {
      const Figure* own = find_figure(report.figures, std::string("head_") + name);
      ASSERT_NE(own, nullptr) << name;
      EXPECT_EQ(own->value, find_figure(expected.figures, name)->value) << name;
      EXPECT_LT(own->low, own->high) << name;
    }
  }
  EXPECT_GT(against_original.kl_mean, expected.kl_mean);
  EXPECT_EQ(find_figure(evaluate(keep, nullptr, chunks, options).figures, "head_kl_mean"), nullptr);
  EXPECT_EQ(find_figure(evaluate(model, nullptr, chunks, {.context = 64}).figures, "head_kl_mean"), nullptr);
}

TEST(Head, RefusesWhatMeansNothing) {
  expect_error(ErrorCode::invalid_argument, "head: found 'int4', expected one of keep, nf4, int8",
               [] { load(tiny_folder(), {.head = "int4"}); });
  expect_error(ErrorCode::invalid_argument, "give one of them",
               [] { load(tiny_folder(), {.format = "nf4", .quantize_head = true, .head = "nf4"}); });
  const TempFolder to;
  const std::string encoder = write_encoder(to, "encoder");
  const LoadModelOptions options = {.head = "nf4",
                                    .progress = [](const Progress&) { ADD_FAILURE() << "a tensor was loaded"; }};
  expect_error(ErrorCode::invalid_argument, "is an encoder",
               [&] { AutoModelForSequenceClassification::from_pretrained(encoder, options); });
}

}  // namespace
}  // namespace nibble
