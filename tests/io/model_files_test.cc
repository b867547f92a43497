// Opening models: folders, shards, the local hub cache, GGUF files, and what is said when something is not there.
#include "io/model_files.h"

#include <gtest/gtest.h>

#include "io/hub_cache.h"
#include "io/raw_files.h"
#include "io/safetensors.h"
#include "support/files.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::safetensors_bytes;
using test::TempFolder;

std::string one_tensor(const std::string& name) {
  return safetensors_bytes("{\"" + name + R"(":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2);
}

/// Sets an environment variable for the time of a test.
class Environment {
 public:
  Environment(const char* name, const std::string& value) : name_(name) {
    const char* old = std::getenv(name);
    had_ = old != nullptr;
    if (had_) old_ = old;
    setenv(name, value.c_str(), 1);
  }
  ~Environment() { had_ ? setenv(name_, old_.c_str(), 1) : unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
  std::string old_;
  bool had_ = false;
};

TEST(ModelFiles, EveryReferenceModelOpens) {
  NIBBLE_NEED_SHARED("goldens/models");
  int models = 0;
  for (const auto& entry : fs::directory_iterator(test::shared_folder() / "goldens/models")) {
    SCOPED_TRACE(entry.path().string());
    const ModelFiles model = open_model(entry.path().string());
    EXPECT_FALSE(model.is_gguf());
    EXPECT_TRUE(model.config.find("model_type")->is_string());
    EXPECT_GE(model.weights->tensors().size(), 15u);
    for (const SourceTensor& tensor : model.weights->tensors()) {
      const auto loaded = std::get<Tensor>(model.weights->load(tensor.name));
      EXPECT_EQ(loaded.shape, tensor.shape);
      EXPECT_EQ(dtype_name(loaded.dtype), tensor.format);
      EXPECT_EQ(loaded.bytes(), tensor.bytes);
    }
    ++models;
  }
  EXPECT_EQ(models, 14);
}

TEST(ModelFiles, GgufFilesComeWithConfigurationAndMetadata) {
  NIBBLE_NEED_SHARED("goldens/gguf/q4_0.gguf");
  const ModelFiles model = open_model((test::shared_folder() / "goldens/gguf/q4_0.gguf").string());
  ASSERT_TRUE(model.is_gguf());
  EXPECT_EQ(model.config.find("num_key_value_heads")->as_int(""), 2);
  EXPECT_EQ(model.config.find("rms_norm_eps")->as_double(""), 1e-5);
  EXPECT_EQ(model.gguf_metadata->find("tokenizer.ggml.tokens")->as_array("").size(), 96u);
  EXPECT_EQ(model.weights->find("model.layers.0.mlp.down_proj.weight")->format, "q4_0");
  EXPECT_EQ(model.weights->find("model.norm.weight")->format, "fp32");
}

TEST(ModelFiles, ShardsAreOneSource) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("generation_config.json", R"({"eos_token_id": 2})");
  folder.write("x-1.safetensors", one_tensor("a"));
  folder.write("x-2.safetensors", one_tensor("b"));
  folder.write("model.safetensors.index.json", R"({"weight_map": {"b": "x-2.safetensors", "a": "x-1.safetensors"}})");
  const ModelFiles model = open_model(folder.path().string());
  EXPECT_EQ(model.weights->tensors().size(), 2u);
  EXPECT_EQ(model.weights->origin("b"), (folder / "x-2.safetensors").string());
  EXPECT_EQ(std::get<Tensor>(model.weights->load("b")).count(), 2);
  EXPECT_EQ(model.weights->find("c"), nullptr);
  EXPECT_EQ(model.generation_config.find("eos_token_id")->as_int(""), 2);
  expect_error(ErrorCode::format, "has no tensor 'c'", [&] { model.weights->load("c"); });
}

TEST(ModelFiles, NormsWithTensorFlowsNamesHaveTheModernOnes) {
  const TempFolder folder;
  folder.write("config.json", "{}");
  for (const char* name :
       {"a.LayerNorm.gamma", "a.LayerNorm.beta", "b.LayerNorm.gamma", "b.LayerNorm.weight", "gamma"}) {
    const std::string entry = R"(":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}})";
    folder.write(std::string(name) + ".safetensors", safetensors_bytes("{\"" + std::string(name) + entry, 2));
  }
  folder.write("model.safetensors.index.json", R"({"weight_map": {
    "a.LayerNorm.gamma": "a.LayerNorm.gamma.safetensors", "a.LayerNorm.beta": "a.LayerNorm.beta.safetensors",
    "b.LayerNorm.gamma": "b.LayerNorm.gamma.safetensors", "b.LayerNorm.weight": "b.LayerNorm.weight.safetensors",
    "gamma": "gamma.safetensors"}})");
  const ModelFiles model = open_model(folder.path().string());
  std::vector<std::string> names;
  for (const SourceTensor& tensor : model.weights->tensors()) {
    names.push_back(tensor.name);
    EXPECT_EQ(std::get<Tensor>(model.weights->load(tensor.name)).count(), 1);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"a.LayerNorm.bias", "a.LayerNorm.weight", "b.LayerNorm.gamma",
                                             "b.LayerNorm.weight", "gamma"}));
  EXPECT_EQ(model.weights->origin("a.LayerNorm.weight"), (folder / "a.LayerNorm.gamma.safetensors").string());
}

TEST(ModelFiles, BrokenIndexes) {
  struct Row {
    std::string index, fragment;
    ErrorCode code = ErrorCode::format;
  };
  for (const Row& row :
       std::vector<Row>{{"{}", "has no weight_map"},
                        {R"({"weight_map": {}})", "weight_map is empty"},
                        {R"({"weight_map": []})", "weight_map: found an array, expected an object"},
                        {R"({"weight_map": {"a": 1}})", "weight_map 'a': found an integer"},
                        {R"({"weight_map": {"a": "../x.safetensors"}})", "'../x.safetensors' is not a plain file name"},
                        {R"({"weight_map": {"a": "/etc/passwd"}})", "is not a plain file name"},
                        {R"({"weight_map": {"a": ".."}})", "is not a plain file name"},
                        {R"({"weight_map": {"a": "x\u0000.safetensors"}})", "is not a plain file name"},
                        {R"({"weight_map": {"a": "b\\c.safetensors"}})", "is not a plain file name"},
                        {R"({"weight_map": {"a": "absent.safetensors"}})",
                         "names absent.safetensors, which is not in the folder", ErrorCode::io},
                        {R"({"weight_map": {"a": "x-1.safetensors", "z": "x-1.safetensors"}})",
                         "tensor 'z' is not in x-1.safetensors"},
                        {R"({"weight_map": {"b": "x-1.safetensors", "a": "x-2.safetensors"}})", "is not in x-"},
                        {R"({"weight_map": {"a": "x-1.safetensors", "b": "x-3.safetensors"}})", "tensor 'a' is in"},
                        {R"({"weight_map": {"a": "x-1.safetensors", "a": "x-1.safetensors"}})", "duplicate key 'a'"}}) {
    SCOPED_TRACE(row.index);
    const TempFolder folder;
    folder.write("config.json", "{}");
    folder.write("x-1.safetensors", one_tensor("a"));
    folder.write("x-2.safetensors", one_tensor("b"));
    folder.write("x-3.safetensors", one_tensor("a"));
    folder.write("model.safetensors.index.json", row.index);
    expect_error(row.code, row.fragment, [&] { open_model(folder.path().string()); });
  }
}

TEST(ModelFiles, MissingFilesAreNamed) {
  const TempFolder folder;
  const std::string path = folder.path().string();
  expect_error(ErrorCode::io, "has no config.json", [&] { open_model(path); });
  folder.write("adapter_config.json", "{}");
  expect_error(ErrorCode::io, "it is an adapter", [&] { open_model(path); });
  folder.write("m.gguf", "neither this nor that");
  expect_error(ErrorCode::io, "open one of its GGUF files, like " + (folder / "m.gguf").string(),
               [&] { open_model(path); });
  folder.write("config.json", "{}");
  expect_error(ErrorCode::io, "has neither model.safetensors nor model.safetensors.index.json",
               [&] { open_model(path); });
  folder.write("pytorch_model.bin", "x");
  expect_error(ErrorCode::io, "pytorch_model.bin can run code", [&] { open_model(path); });
  folder.write("config.json", "[]");
  expect_error(ErrorCode::format, "config.json: found an array", [&] { open_model(path); });
  folder.write("config.json", R"({"quantization_config": {"quant_method": "gptq"}})");
  expect_error(ErrorCode::unsupported, "quant_method 'gptq'", [&] { open_model(path); });
  expect_error(ErrorCode::format, "does not begin with 'GGUF'", [&] { open_model((folder / "m.gguf").string()); });
  expect_error(ErrorCode::io, "/no/such/thing/x: no such folder", [] { open_model("/no/such/thing/x"); });
}

TEST(ModelFiles, CachedModelsAreFoundByTheirId) {
  const TempFolder cache;
  const Environment variable("HF_HUB_CACHE", cache.path().string());
  const std::string model = "models--org--tiny.model";
  cache.write(model + "/blobs/1", "{\"model_type\": \"llama\"}");
  cache.write(model + "/blobs/2", one_tensor("a"));
  cache.write(model + "/refs/main", "c0ffee\n");
  fs::create_directories(cache / (model + "/snapshots/c0ffee"));
  fs::create_symlink("../../blobs/1", cache / (model + "/snapshots/c0ffee/config.json"));
  fs::create_symlink("../../blobs/2", cache / (model + "/snapshots/c0ffee/model.safetensors"));
  for (const char* id : {"org/tiny.model", "org/tiny.model@main", "org/tiny.model@c0ffee"}) {
    EXPECT_EQ(open_model(id).config.find("model_type")->as_string(""), "llama") << id;
  }
  expect_error(ErrorCode::io, "no model of that name (revision v2) in the cache " + cache.path().string(),
               [] { open_model("org/tiny.model@v2"); });
  expect_error(ErrorCode::io, "hf download org/other", [] { open_model("org/other"); });
  cache.write(model + "/refs/main", "../../../etc");
  expect_error(ErrorCode::format, "is not a plain file name", [] { open_model("org/tiny.model"); });
}

TEST(HubCache, FolderFollowsTheEnvironment) {
  const Environment home("HOME", "/h");
  const Environment no_cache("HF_HUB_CACHE", ""), no_home("HF_HOME", "");
  EXPECT_EQ(hub_cache_folder(), "/h/.cache/huggingface/hub");
  const Environment hf_home("HF_HOME", "/x");
  EXPECT_EQ(hub_cache_folder(), "/x/hub");
  const Environment cache("HF_HUB_CACHE", "/y");
  EXPECT_EQ(hub_cache_folder(), "/y");
}

TEST(HubCache, IdsAreTakenApart) {
  EXPECT_EQ(parse_hub_id("org/name")->revision, "main");
  EXPECT_EQ(parse_hub_id("org/na_me-1.5@v2")->model, "org/na_me-1.5");
  EXPECT_EQ(parse_hub_id("gpt2@abc")->revision, "abc");
  for (const char* text :
       {"", "/", "a/", "/b", "a/b/c", "../x", "a/..", "a/b@", "a/b@../x", "a b", "./model", "a/b@x/y"}) {
    EXPECT_FALSE(parse_hub_id(text)) << text;
  }
}

}  // namespace
}  // namespace nibble
