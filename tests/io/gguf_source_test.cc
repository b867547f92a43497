// GGUF files seen as Hugging Face models: names, order of rows, configuration.
#include "io/gguf_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numbers>

#include "io/gguf_names.h"
#include "io/model_files.h"
#include "io/raw_files.h"
#include "support/files.h"

namespace nibble {
namespace {

using test::bytes_of;
using test::expect_error;
using test::GgufBuilder;
using test::MemoryFile;

std::string floats(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) bytes += bytes_of(value);
  return bytes;
}

std::vector<float> counted(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<float>(i);
  return values;
}

/// The required keys of an architecture with 2 heads of 4, 1 key-value head.
GgufBuilder tiny(const std::string& architecture, const std::string& epsilon = "attention.layer_norm_rms_epsilon") {
  const std::string p = architecture + ".";
  GgufBuilder builder;
  builder.text("general.architecture", architecture)
      .u32(p + "embedding_length", 8)
      .u32(p + "block_count", 6)
      .u32(p + "feed_forward_length", 16)
      .u32(p + "context_length", 64)
      .u32(p + "attention.head_count", 2)
      .u32(p + "attention.head_count_kv", 1)
      .f32(p + epsilon, 1e-5f)
      .zeros("token_embd.weight", {8, 10});
  return builder;
}

GgufModel open(const GgufBuilder& builder) {
  const MemoryFile file;
  file.set(builder.build());
  return open_gguf(file.path());
}

Tensor dense(const GgufModel& model, const std::string& name) { return std::get<Tensor>(model.weights->load(name)); }

TEST(GgufSource, ConfigurationSpeaksHuggingFacesWords) {
  const GgufModel model = open(tiny("llama")
                                   .f32("llama.rope.freq_base", 500000.0f)
                                   .u32("llama.attention.key_length", 4)
                                   .u32("tokenizer.ggml.bos_token_id", 1)
                                   .u32("tokenizer.ggml.eos_token_id", 2)
                                   .zeros("blk.0.attn_q.bias", {8}));
  EXPECT_EQ(
      model.config.dump(),
      R"({"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_act":"silu","hidden_size":8,)"
      R"("num_hidden_layers":6,"intermediate_size":16,"max_position_embeddings":64,"num_attention_heads":2,)"
      R"("num_key_value_heads":1,"head_dim":4,"rms_norm_eps":1e-05,"rope_theta":500000.0,"bos_token_id":1,)"
      R"("eos_token_id":2,"attention_bias":true,"vocab_size":10,"tie_word_embeddings":true,"torch_dtype":"float32"})");
  EXPECT_EQ(model.metadata.find("general.architecture")->as_string(""), "llama");
}

TEST(GgufSource, EveryEndOfATurnIsAnEnd) {
  struct Row {
    const char* name;
    GgufBuilder file;
    const char* expected;
  };
  const std::string eos = "tokenizer.ggml.eos_token_id", eot = "tokenizer.ggml.eot_token_id";
  const std::vector<std::string> gemma = {"<pad>", "<eos>", "<bos>", "a", "<end_of_turn>"},
                                 phi3 = {"<|end|>", "a<|end|>", "<|endoftext|>", "</s>"};
  const Row rows[] = {{"none", tiny("llama"), "null"},
                      {"one", tiny("llama").u32(eos, 2).u32(eot, 2), "2"},
                      {"by id", tiny("llama").u32(eot, 5).u32("tokenizer.ggml.eom_token_id", 4).u32(eos, 7), "[7,5,4]"},
                      {"by spelling", tiny("llama").u32(eos, 1).texts("tokenizer.ggml.tokens", gemma), "[1,4]"},
                      {"both", tiny("llama").u32(eos, 2).texts("tokenizer.ggml.tokens", phi3), "[2,0]"}};
  for (const Row& row : rows) {
    const GgufModel model = open(row.file);
    const Json* ids = model.config.find("eos_token_id");
    EXPECT_EQ(ids ? ids->dump() : "null", row.expected) << row.name;
  }
}

TEST(GgufSource, OutputTensorMeansUntied) {
  const GgufModel model = open(tiny("llama").zeros("output.weight", {8, 10}));
  EXPECT_FALSE(model.config.find("tie_word_embeddings")->as_bool(""));
  EXPECT_NE(model.weights->find("lm_head.weight"), nullptr);
}

// Hugging Face's row a * 2 + i of a head of 4 lies in the file as row i * 2 + a.
TEST(GgufSource, RowsOfQueriesAndKeysGetTheirOrderBack) {
  const std::vector<float> stored = {0, 2, 1, 3, 4, 6, 5, 7};  // one value per row, 2 heads of 4
  std::vector<float> matrix;
  for (const float row : stored) matrix.insert(matrix.end(), 8, row);
  const GgufModel model = open(
      tiny("llama")
          .tensor("blk.0.attn_q.weight", {8, 8}, 0, floats(matrix))
          .tensor("blk.0.attn_q.bias", {8}, 0, floats(stored))
          .tensor("blk.0.attn_v.weight", {8, 8}, 0, floats(matrix))
          .tensor("blk.0.attn_k.weight", {8, 4}, 0, floats(std::vector<float>(matrix.begin(), matrix.begin() + 32))));
  const Tensor q = dense(model, "model.layers.0.self_attn.q_proj.weight");
  const Tensor bias = dense(model, "model.layers.0.self_attn.q_proj.bias");
  for (int64_t r = 0; r < 8; ++r) {
    EXPECT_EQ(q.f32()[r * 8 + 3], static_cast<float>(r));
    EXPECT_EQ(bias.f32()[r], static_cast<float>(r));
  }
  const Tensor k = dense(model, "model.layers.0.self_attn.k_proj.weight");
  for (int64_t r = 0; r < 4; ++r) EXPECT_EQ(k.f32()[r * 8], static_cast<float>(r));
  EXPECT_EQ(dense(model, "model.layers.0.self_attn.v_proj.weight").f32()[8], 2.0f);
}

TEST(GgufSource, QuantizedRowsMoveAsBytes) {
  std::string blocks;
  for (const int row : {0, 2, 1, 3, 4, 6, 5, 7}) blocks += std::string(18, static_cast<char>(row));
  const GgufModel model = open(tiny("llama").tensor("blk.0.attn_q.weight", {32, 8}, 2, blocks));
  const auto w = std::get<QuantizedTensor>(model.weights->load("model.layers.0.self_attn.q_proj.weight"));
  EXPECT_EQ(w.format->name, "q4_0");
  EXPECT_EQ(w.shape, (Shape{8, 32}));
  for (int64_t r = 0; r < 8; ++r) EXPECT_EQ(w.part("data").data<uint8_t>()[r * 18 + 17], r);
}

TEST(GgufSource, NormsOfGemmaLoseTheOne) {
  const GgufModel model = open(tiny("gemma2")
                                   .u32("gemma2.attention.key_length", 16)
                                   .tensor("blk.0.attn_norm.weight", {8}, 0, floats(counted(8)))
                                   .tensor("blk.0.ffn_norm.weight", {8}, 0, floats(counted(8)))
                                   .zeros("blk.0.post_attention_norm.weight", {8}));
  EXPECT_EQ(dense(model, "model.layers.0.input_layernorm.weight").f32()[3], 2.0f);
  EXPECT_EQ(dense(model, "model.layers.0.pre_feedforward_layernorm.weight").f32()[0], -1.0f);
  EXPECT_EQ(model.config.find("query_pre_attn_scalar")->as_int(""), 16);
  EXPECT_EQ(model.config.find("layer_types")->as_array("")[0].as_string(""), "sliding_attention");
  EXPECT_EQ(model.config.find("layer_types")->as_array("")[1].as_string(""), "full_attention");
}

TEST(GgufSource, LinearLayersOfGpt2AreTransposedWhenDense) {
  const GgufModel model = open(tiny("gpt2", "attention.layer_norm_epsilon")
                                   .tensor("blk.0.attn_qkv.weight", {8, 24}, 0, floats(counted(192)))
                                   .tensor("blk.0.ffn_up.weight", {32, 4}, 2, std::string(72, '\1')));
  const SourceTensor* info = model.weights->find("transformer.h.0.attn.c_attn.weight");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->shape, (Shape{8, 24}));
  EXPECT_EQ(dense(model, info->name).f32()[1], 8.0f);
  EXPECT_EQ(model.weights->find("transformer.h.0.mlp.c_fc.weight")->shape, (Shape{4, 32}));
}

std::vector<float> llama3_divisors(double theta, double factor, double context, size_t count) {
  std::vector<float> divisors;
  for (size_t i = 0; i < count; ++i) {
    const double wavelength =
        2 * std::numbers::pi * std::pow(theta, static_cast<double>(i) / static_cast<double>(count));
    const double smooth = (context / wavelength - 1.0) / 3.0;
    divisors.push_back(static_cast<float>(wavelength < context / 4 ? 1.0
                                          : wavelength > context   ? factor
                                                                   : 1.0 / ((1 - smooth) / factor + smooth)));
  }
  return divisors;
}

TEST(GgufSource, Llama3RopeIsFoundAgainFromItsDivisors) {
  const std::vector<float> divisors = llama3_divisors(500000.0, 32.0, 8192.0, 32);
  const GgufModel model =
      open(tiny("llama").f32("llama.rope.freq_base", 500000.0f).tensor("rope_freqs.weight", {32}, 0, floats(divisors)));
  EXPECT_EQ(model.config.find("rope_scaling")->dump(),
            R"({"rope_type":"llama3","factor":32.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
            R"("original_max_position_embeddings":8192})");
  expect_error(ErrorCode::unsupported, "rope_freqs.weight", [] {
    open(tiny("llama").tensor("rope_freqs.weight", {4}, 0, floats({1, 2, 1, 9})));
  });
}

TEST(GgufSource, RopeScalingOfTheMetadata) {
  const GgufModel linear =
      open(tiny("llama").text("llama.rope.scaling.type", "linear").f32("llama.rope.scaling.factor", 4.0f));
  EXPECT_EQ(linear.config.find("rope_scaling")->dump(), R"({"rope_type":"linear","factor":4.0})");
  const GgufModel older = open(tiny("llama").f32("llama.rope.scale_linear", 8.0f));
  EXPECT_EQ(older.config.find("rope_scaling")->dump(), R"({"rope_type":"linear","factor":8.0})");
  const GgufModel none =
      open(tiny("llama").text("llama.rope.scaling.type", "none").f32("llama.rope.scale_linear", 8.0f));
  EXPECT_EQ(none.config.find("rope_scaling"), nullptr);
  const GgufModel zero = open(tiny("llama").f32("llama.rope.scaling.factor", 0.0f));
  EXPECT_EQ(zero.config.find("rope_scaling"), nullptr);
  // ggml multiplies what follows from the stretch, 1 + 0.1 ln 4, with it.
  const GgufModel yarn = open(tiny("llama")
                                  .text("llama.rope.scaling.type", "yarn")
                                  .f32("llama.rope.scaling.factor", 4.0f)
                                  .f32("llama.rope.scaling.attn_factor", 0.5f));
  EXPECT_NEAR(yarn.config.find("rope_scaling")->find("attention_factor")->as_double("x"), 0.56931472, 1e-7);
  expect_error(ErrorCode::unsupported, "llama.rope.scaling.attn_factor: found 0.5",
               [] { open(tiny("llama").f32("llama.rope.scaling.attn_factor", 0.5f)); });
  expect_error(ErrorCode::unsupported, "'longrope' is not supported; none, linear and yarn are",
               [] { open(tiny("llama").text("llama.rope.scaling.type", "longrope")); });
}

TEST(GgufSource, NamesTranslateBothWays) {
  struct Row {
    const char *architecture, *gguf, *hf;
  };
  for (const Row& row : std::vector<Row>{
           {"llama", "blk.12.ffn_norm.weight", "model.layers.12.post_attention_layernorm.weight"},
           {"qwen2", "blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias"},
           {"qwen3", "blk.3.attn_q_norm.weight", "model.layers.3.self_attn.q_norm.weight"},
           {"gemma3", "blk.3.ffn_norm.weight", "model.layers.3.pre_feedforward_layernorm.weight"},
           {"gemma3", "blk.3.post_attention_norm.weight", "model.layers.3.post_attention_layernorm.weight"},
           {"phi3", "blk.1.ffn_up.weight", "model.layers.1.mlp.gate_up_proj.weight"},
           {"olmo2", "blk.1.post_ffw_norm.weight", "model.layers.1.post_feedforward_layernorm.weight"},
           {"smollm3", "output_norm.weight", "model.norm.weight"},
           {"gpt2", "blk.7.attn_qkv.bias", "transformer.h.7.attn.c_attn.bias"},
           {"bert", "blk.0.attn_output_norm.bias", "encoder.layer.0.attention.output.LayerNorm.bias"}}) {
    const GgufArchitecture& architecture = find_gguf_architecture(row.architecture, "test");
    EXPECT_EQ(hf_tensor_name(architecture, row.gguf), row.hf);
    EXPECT_EQ(gguf_tensor_name(architecture, row.hf), row.gguf);
  }
  const GgufArchitecture& llama = find_gguf_architecture("llama", "test");
  EXPECT_EQ(hf_tensor_name(llama, "blk.attn_q.weight"), std::nullopt);
  EXPECT_EQ(hf_tensor_name(llama, "blk.0.attn_q"), std::nullopt);
  EXPECT_EQ(hf_tensor_name(llama, "mm.0.weight"), std::nullopt);
}

TEST(GgufSource, WhatIsNotUnderstoodIsRefused) {
  expect_error(ErrorCode::unsupported, "architecture 'mamba' is not supported; llama, qwen2",
               [] { open(tiny("mamba")); });
  expect_error(ErrorCode::format, "general.architecture is missing", [] { open(GgufBuilder().zeros("a", {1})); });
  expect_error(ErrorCode::format, "has no tensor 'token_embd.weight'",
               [] { open(GgufBuilder().text("general.architecture", "llama")); });
  expect_error(ErrorCode::format, "llama.embedding_length: is missing", [] {
    open(GgufBuilder().text("general.architecture", "llama").zeros("token_embd.weight", {8, 2}));
  });
  expect_error(ErrorCode::unsupported, "tensor 'cls.weight': is not known for architecture llama", [] {
    open(tiny("llama").zeros("cls.weight", {8, 2}));
  });
  expect_error(ErrorCode::format, "6 rows do not divide into 2 heads", [] {
    open(tiny("llama").zeros("blk.0.attn_q.weight", {8, 6}));
  });
  expect_error(ErrorCode::unsupported, "only matrices are supported", [] {
    open(tiny("llama").tensor("blk.0.ffn_up.weight", {32, 1, 2}, 2, std::string(36, '\0')));
  });
  expect_error(ErrorCode::format, "llama.block_count: found a string, expected a number", [] {
    open(GgufBuilder()
             .text("general.architecture", "llama")
             .u32("llama.embedding_length", 8)
             .text("llama.block_count", "6")
             .zeros("token_embd.weight", {8, 2}));
  });
}

/// Root mean square of the difference, relative to that of the reference.
double relative_error(const Tensor& a, const Tensor& reference) {
  double difference = 0, total = 0;
  for (int64_t i = 0; i < reference.count(); ++i) {
    difference += std::pow(static_cast<double>(a.f32()[i]) - reference.f32()[i], 2);
    total += std::pow(static_cast<double>(reference.f32()[i]), 2);
  }
  return std::sqrt(difference / total);
}

TEST(GgufSource, EveryTypeOfTheSameModelHoldsTheSameWeights) {
  NIBBLE_NEED_SHARED("goldens/gguf/f32.gguf");
  struct Row {
    const char* file;
    double bound;  // of the relative error: step / sqrt(12) over the spread of normal weights, and a margin
  };
  const auto folder = test::shared_folder() / "goldens/gguf";
  const GgufModel reference = open_gguf(folder / "f32.gguf");
  ASSERT_EQ(reference.weights->tensors().size(), 12u);
  for (const Row& row :
       {Row{"f16.gguf", 4e-4}, Row{"bf16.gguf", 3e-3}, Row{"q8_0.gguf", 0.01}, Row{"q5_0.gguf", 0.06},
        Row{"q5_1.gguf", 0.06}, Row{"q4_0.gguf", 0.12}, Row{"q4_1.gguf", 0.12}, Row{"mixed.gguf", 0.12}}) {
    const GgufModel model = open_gguf(folder / row.file);
    for (const SourceTensor& tensor : reference.weights->tensors()) {
      SCOPED_TRACE(std::string(row.file) + " " + tensor.name);
      ASSERT_NE(model.weights->find(tensor.name), nullptr);
      EXPECT_EQ(model.weights->find(tensor.name)->shape, tensor.shape);
      const Tensor a = decode(model.weights->load(tensor.name)), b = decode(reference.weights->load(tensor.name));
      EXPECT_LT(relative_error(a, b), row.bound);
    }
  }
  EXPECT_EQ(reference.weights->find("model.layers.0.self_attn.k_proj.weight")->shape, (Shape{32, 64}));
}

/// Models that are too large for the source tree: $NIBBLE_REAL_MODELS or ~/.cache/nibble-real.
std::filesystem::path real_models() {
  const char *folder = std::getenv("NIBBLE_REAL_MODELS"), *home = std::getenv("HOME");
  return folder ? std::filesystem::path(folder) : std::filesystem::path(home ? home : ".") / ".cache/nibble-real";
}

// smollm2-135m-f32 holds, bit for bit, what transformers reads from the GGUF file.
TEST(GgufSource, PublishedModelEqualsWhatTransformersReads) {
  const auto gguf = real_models() / "smollm2-135m-gguf/SmolLM2-135M-Instruct.Q4_1.gguf";
  const auto folder = real_models() / "smollm2-135m-f32";
  if (!std::filesystem::exists(gguf) || !std::filesystem::exists(folder)) {
    GTEST_SKIP() << "SmolLM2-135M as GGUF and as a float32 folder is not in " << real_models();
  }
  const ModelFiles a = open_model(gguf.string()), b = open_model(folder.string());
  EXPECT_EQ(a.weights->tensors().size(), b.weights->tensors().size());
  for (const SourceTensor& tensor : b.weights->tensors()) {
    const bool checked =
        tensor.name.find("layers.") == std::string::npos || tensor.name.find("layers.17.") != std::string::npos;
    if (!checked) continue;
    SCOPED_TRACE(tensor.name);
    ASSERT_NE(a.weights->find(tensor.name), nullptr);
    const Tensor x = decode(a.weights->load(tensor.name)), y = decode(b.weights->load(tensor.name));
    ASSERT_EQ(x.shape, y.shape);
    EXPECT_EQ(std::memcmp(x.raw(), y.raw(), x.bytes()), 0);
  }
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                          "intermediate_size", "vocab_size", "tie_word_embeddings", "rope_theta", "rms_norm_eps"}) {
    ASSERT_NE(a.config.find(key), nullptr) << key;
    EXPECT_EQ(a.config.find(key)->dump(), Json(*b.config.find(key)).dump()) << key;
  }
}

}  // namespace
}  // namespace nibble
