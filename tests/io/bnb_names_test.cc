// Quantized matrices in safetensors files: what bitsandbytes wrote decodes to what bitsandbytes decodes, and what
// nibble writes has the same names and bytes.
#include "io/bnb_names.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "io/model_files.h"
#include "io/quant_state.h"
#include "io/safetensors.h"
#include "support/files.h"
#include "support/sha256.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

/// Adding 0 turns the -0 of FP4's code 8 into +0. Which of the two bitsandbytes gives depends on its code path.
Tensor with_negative_zero_of_code_8(Tensor values, const QuantizedTensor& w) {
  const auto* packed = w.part("data").data<uint8_t>();
  for (int64_t i = 0; i < values.count(); ++i) {
    const int code = i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15;
    if (values.f32()[i] == 0.0f) values.f32()[i] = code == 8 ? -0.0f : 0.0f;
  }
  return values;
}

std::string digest(const Tensor& tensor) { return test::sha256({tensor.raw(), tensor.bytes()}).substr(0, 16); }

void expect_digests(const fs::path& folder) {
  const ModelFiles model = open_model(folder.string());
  const Json golden = Json::parse_file((folder / "golden.json").string());
  const auto& weights = golden.find("weights")->as_object("weights");
  ASSERT_FALSE(weights.empty());
  for (const auto& [name, reference] : weights) {
    SCOPED_TRACE(name);
    const Weight weight = model.weights->load(name + ".weight");
    ASSERT_TRUE(std::holds_alternative<QuantizedTensor>(weight));
    const auto& w = std::get<QuantizedTensor>(weight);
    Tensor values = decode(weight);
    if (w.format->name == "fp4") values = with_negative_zero_of_code_8(std::move(values), w);
    for (const char* kind : {"float32", "native"}) {
      const Json& expected = *reference.find(kind);
      const Tensor typed = values.cast(parse_dtype(expected.find("dtype")->as_string(kind)));
      EXPECT_EQ(digest(typed), expected.find("sha256_16")->as_string(kind)) << kind;
    }
    const std::string& native = reference.find("native")->find("dtype")->as_string(name);
    // int8 pieces do not say what the matrix was before.
    EXPECT_EQ(torch_dtype_name(w.dtype), w.format->name == "int8" ? "float32" : native);
  }
}

TEST(BnbNames, EveryReferenceCheckpointDecodesToItsDigests) {
  NIBBLE_NEED_SHARED("goldens/bnb");
  int folders = 0;
  for (const auto& entry : fs::directory_iterator(test::shared_folder() / "goldens/bnb")) {
    SCOPED_TRACE(entry.path().filename().string());
    expect_digests(entry.path());
    ++folders;
  }
  EXPECT_EQ(folders, 15);
}

bool same(const Tensor& a, const Tensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

/// The state of a double-quantized matrix is filled up with spaces to a size that depends on the shape alone.
Tensor without_end_spaces(const std::string& piece, const Tensor& value) {
  if (piece.find(".quant_state.") == std::string::npos) return value;
  int64_t size = value.count();
  while (size > 0 && value.data<char>()[size - 1] == ' ') --size;
  return value.slice_rows(0, size);
}

/// @returns the number of stored tensors that the matrix is made of
size_t expect_same_pieces(const SafetensorsFile& stored, const std::string& weight, const QuantizedTensor& w) {
  const auto pieces = stored_pieces(weight, w);
  for (const auto& [piece, value] : pieces) {
    SCOPED_TRACE(piece);
    if (stored.find(piece) == nullptr) {
      ADD_FAILURE() << "not stored";
      continue;
    }
    EXPECT_TRUE(same(stored.load(piece), without_end_spaces(piece, value)));
  }
  return pieces.size();
}

TEST(BnbNames, PiecesAreWrittenWithTheSameNamesAndBytes) {
  NIBBLE_NEED_SHARED("goldens/bnb");
  for (const char* name :
       {"llama-nf4", "llama-nf4-dq", "llama-fp4", "bert-fp4-dq", "llama-int8", "llama-nf4-dq-bf16"}) {
    const fs::path folder = test::shared_folder() / "goldens/bnb" / name;
    const SafetensorsFile stored(folder / "model.safetensors");
    const ModelFiles model = open_model(folder.string());
    size_t pieces = 0, whole = 0;
    for (const SourceTensor& tensor : model.weights->tensors()) {
      const Weight weight = model.weights->load(tensor.name);
      const auto* quantized = std::get_if<QuantizedTensor>(&weight);
      if (quantized) pieces += expect_same_pieces(stored, tensor.name, *quantized);
      if (!quantized) ++whole;
    }
    EXPECT_EQ(pieces + whole, stored.entries().size()) << name;
  }
}

TEST(BnbNames, ContainerElementTypesAreSeenAsBytes) {
  NIBBLE_NEED_SHARED("goldens/bnb/llama-nf4-storage-bf16");
  const fs::path folder = test::shared_folder() / "goldens/bnb/llama-nf4-storage-bf16";
  const ModelFiles model = open_model(folder.string());
  const std::string name = "model.layers.0.mlp.down_proj.weight";
  EXPECT_EQ(SafetensorsFile(folder / "model.safetensors").find(name)->dtype, "BF16");
  const auto w = std::get<QuantizedTensor>(model.weights->load(name));
  EXPECT_EQ(w.part("data").dtype, DType::u8);
  EXPECT_EQ(w.part("data").shape, (Shape{4096, 1}));
}

Tensor test_matrix(int64_t rows, int64_t cols) {
  Tensor w(DType::f32, {rows, cols});
  for (int64_t i = 0; i < w.count(); ++i) w.f32()[i] = std::sin(static_cast<float>(i * i + 1)) * 0.3f;
  return w;
}

/// Writes a matrix with stored_pieces and opens the file as a model's.
QuantizedTensor through_file(const QuantizedTensor& w, const test::TempFolder& folder) {
  const auto pieces = stored_pieces("m.weight", w);
  std::vector<TensorDeclaration> declared;
  for (const auto& [name, tensor] : pieces) declared.push_back({name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(folder / "model.safetensors", declared);
  for (const auto& [name, tensor] : pieces) writer.write(name, tensor);
  writer.finish();
  const std::unique_ptr<WeightSource> source = open_folder_weights(folder.path());
  EXPECT_EQ(source->tensors().size(), 1u);
  EXPECT_EQ(source->find("m.weight")->format, w.format->name);
  EXPECT_EQ(source->find("m.weight")->shape, w.shape);
  return std::get<QuantizedTensor>(source->load("m.weight"));
}

TEST(BnbNames, EveryWritableFormatSurvivesTheFile) {
  struct Row {
    const char* format;
    EncodeOptions options;
  };
  for (const Row& row : std::vector<Row>{{"nf4", {}},
                                         {"nf4", {.block = 128, .double_quant = true}},
                                         {"fp4", {.block = 32}},
                                         {"int4", {}},
                                         {"int4", {.double_quant = true}},
                                         {"int8", {}},
                                         {"int8-dynamic", {}},
                                         {"int8-dynamic", {.granularity = Granularity::tensor}}}) {
    SCOPED_TRACE(row.format);
    const test::TempFolder folder;
    const auto written = std::get<QuantizedTensor>(encode(test_matrix(7, 37), find_format(row.format), row.options));
    const QuantizedTensor read = through_file(written, folder);
    EXPECT_EQ(read.block, written.block);
    EXPECT_EQ(read.double_quant, written.double_quant);
    ASSERT_EQ(read.parts.size(), written.parts.size());
    for (const auto& [part, tensor] : written.parts) EXPECT_TRUE(same(read.part(part), tensor)) << part;
    EXPECT_TRUE(same(decode(read), decode(written)));
  }
}

TEST(BnbNames, StoredSizeIsWhatTheFormatSays) {
  const test::TempFolder folder;
  const Format& format = find_format("nf4");
  const auto w = std::get<QuantizedTensor>(encode(test_matrix(8, 64), format, {}));
  uint64_t bytes = 0, state = 0;
  for (const auto& [name, tensor] : stored_pieces("m.weight", w)) {
    bytes += tensor.bytes();
    if (name.find("quant_state") != std::string::npos) state = tensor.bytes();
  }
  EXPECT_EQ(bytes - state, w.bytes());
}

TEST(BnbNames, GgufBlocksCannotBeWritten) {
  QuantizedTensor w;
  w.format = &find_format("q4_0");
  expect_error(ErrorCode::unsupported, "format q4_0 cannot be written", [&] { stored_pieces("m.weight", w); });
}

TEST(QuantState, TextIsThatOfPython) {
  QuantState state = {
      .quant_type = "nf4", .block = 64, .dtype = DType::bf16, .shape = {4096, 4096}, .nested_offset = {}};
  EXPECT_EQ(quant_state_text(state),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4096, 4096]})");
  state.nested_offset = static_cast<double>(0.0421f);
  EXPECT_EQ(quant_state_text(state),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [4096, 4096], )"
            R"("nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.042100001126527786})");
  EXPECT_EQ(quant_state_text(state).size(), 173u);
}

TEST(QuantState, FloatsHavePythonsShortestText) {
  const std::vector<std::pair<double, std::string>> cases = {
      {0.0, "0.0"},       {-0.0, "-0.0"},      {1.0, "1.0"},
      {0.0001, "0.0001"}, {0.00001, "1e-05"},  {1e15, "1000000000000000.0"},
      {1e16, "1e+16"},    {1.5e-7, "1.5e-07"}, {123456.75, "123456.75"},
      {1e100, "1e+100"},  {0.1, "0.1"},        {static_cast<double>(0.1f), "0.10000000149011612"}};
  for (const auto& [value, text] : cases) EXPECT_EQ(python_repr(value), text);
}

}  // namespace
}  // namespace nibble
