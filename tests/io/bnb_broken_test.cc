// One broken set of pieces per check. Every case starts from a valid matrix in memory.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "io/bnb_names.h"
#include "io/quant_state.h"
#include "support/files.h"

namespace nibble {
namespace {

using test::expect_error;

/// Stored tensors that a test can change before they are folded.
struct Store {
  std::map<std::string, Tensor> tensors;

  explicit Store(const std::string& format, const EncodeOptions& options = {}) {
    Tensor matrix(DType::f32, {8, 64});
    for (int64_t i = 0; i < matrix.count(); ++i) matrix.f32()[i] = std::cos(static_cast<float>(i));
    const Weight weight = encode(matrix, find_format(format), options);
    for (auto& [name, tensor] : stored_pieces("p.weight", std::get<QuantizedTensor>(weight))) tensors[name] = tensor;
  }

  std::string text(const std::string& name) const {
    const Tensor& tensor = tensors.at(name);
    return {tensor.data<char>(), tensor.bytes()};
  }
  void set_text(const std::string& name, const std::string& text) {
    tensors[name] =
        Tensor::from({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, {static_cast<int64_t>(text.size())});
  }
  /// Replaces a piece of the state.
  void edit_state(const std::string& from, const std::string& to) {
    const std::string name = "p.weight.quant_state.bitsandbytes__nf4";
    std::string state = text(name);
    state.replace(state.find(from), from.size(), to);
    set_text(name, state);
  }

  QuantizedTensor load() const {
    std::vector<StoredTensor> stored;
    for (const auto& [name, tensor] : tensors) {
      stored.push_back({name, std::string(safetensors_name(tensor.dtype)), tensor.shape, tensor.bytes(), "f"});
    }
    const ReadStored read = [this](const std::string& name, ReadAs as) {
      Tensor tensor = tensors.at(name);
      if (as == ReadAs::stored) return tensor;
      tensor.shape = {static_cast<int64_t>(tensor.bytes())};
      tensor.dtype = DType::u8;
      return tensor;
    };
    const std::vector<FoldedWeight> folded = fold_pieces(stored, read);
    if (folded.size() != 1) fail(ErrorCode::internal, "expected one matrix");
    return load_folded(folded[0], read);
  }
};

void expect_broken(const Store& store, const std::string& fragment, ErrorCode code = ErrorCode::format) {
  SCOPED_TRACE(fragment);
  expect_error(code, fragment, [&] { store.load(); });
}

TEST(BnbBroken, TheUnchangedPiecesAreFine) {
  for (const char* format : {"nf4", "fp4", "int4", "int8", "int8-dynamic"})
    EXPECT_EQ(Store(format).load().rows(), 8) << format;
  EXPECT_TRUE(Store("nf4", {.double_quant = true}).load().double_quant);
}

TEST(BnbBroken, EveryPieceIsRequired) {
  for (const char* piece :
       {"p.weight", "p.weight.absmax", "p.weight.quant_map", "p.weight.nested_absmax", "p.weight.nested_quant_map"}) {
    Store store("nf4", {.double_quant = true});
    store.tensors.erase(piece);
    expect_broken(store, std::string("has no '") + piece + "'");
  }
  Store store("nf4");
  store.tensors.erase("p.weight.quant_state.bitsandbytes__nf4");
  expect_broken(store, "'p.weight': is packed (U8), but the tensors that say how are missing");
  store.tensors.erase("p.weight");
  expect_broken(store, "'p.weight.absmax': is a piece of a quantized matrix whose other pieces are missing");
}

TEST(BnbBroken, TypesAndSizesOfPieces) {
  const std::vector<std::pair<std::string, Tensor>> cases = {
      {"p.weight.absmax", Tensor(DType::f32, {7})},     {"p.weight.absmax", Tensor(DType::f32, {9})},
      {"p.weight.absmax", Tensor(DType::f16, {8})},     {"p.weight.absmax", Tensor(DType::u8, {8})},
      {"p.weight.absmax", Tensor(DType::f32, {8, 1})},  {"p.weight.quant_map", Tensor(DType::f32, {15})},
      {"p.weight.quant_map", Tensor(DType::f64, {16})},
  };
  for (const auto& [name, tensor] : cases) {
    Store store("nf4");
    store.tensors[name] = tensor;
    expect_broken(
        store, "'" + name + "': found " + std::string(safetensors_name(tensor.dtype)) + " " + shape_text(tensor.shape));
  }
  Store store("nf4");
  store.tensors["p.weight"] = Tensor(DType::u8, {255, 1});
  expect_broken(store, "255 bytes, expected 256 for [8, 64] in 4 bits");
  store.tensors["p.weight"] = Tensor(DType::u8, {257, 1});
  expect_broken(store, "257 bytes, expected 256");
}

TEST(BnbBroken, NestedPieces) {
  Store nested("nf4", {.double_quant = true});
  nested.tensors["p.weight.nested_absmax"] = Tensor(DType::f32, {2});
  expect_broken(nested, "found F32 [2], expected F32 [1]");
  nested = Store("nf4", {.double_quant = true});
  nested.tensors["p.weight.nested_quant_map"] = Tensor(DType::f32, {255});
  expect_broken(nested, "found F32 [255], expected F32 [256]");
  nested = Store("nf4", {.double_quant = true});
  nested.tensors["p.weight.absmax"] = Tensor(DType::f32, {8});
  expect_broken(nested, "found F32 [8], expected U8 [8]");
  Store plain("nf4");
  plain.tensors["p.weight.nested_absmax"] = Tensor(DType::f32, {1});
  expect_broken(plain, "'p.weight.nested_absmax': but its quant_state has no nested_offset");
}

TEST(BnbBroken, State) {
  struct Row {
    const char *from, *to, *fragment;
    ErrorCode code = ErrorCode::format;
  };
  for (const Row& row : std::vector<Row>{
           {"{", "[", "not valid JSON"},
           {"\"nf4\"", "\"fp4\"", "quant_type 'fp4', expected 'nf4'"},
           {"\"quant_type\"", "\"quanttype\"", "unknown key 'quanttype'"},
           {", \"dtype\": \"float32\"", "", "has no 'dtype'"},
           {"\"dtype\"", "\"blocksize\"", "duplicate key 'blocksize'"},
           {"\"blocksize\": 64", "\"blocksize\": 48", "blocksize: 48, expected a power of two from 32 to 4096"},
           {"\"blocksize\": 64", "\"blocksize\": 8192", "blocksize: 8192"},
           {"\"blocksize\": 64", "\"blocksize\": 0", "blocksize: 0"},
           {"\"blocksize\": 64", "\"blocksize\": \"64\"", "blocksize: found a string"},
           {"\"blocksize\": 64", "\"blocksize\": 32", "found F32 [8], expected F32 [16]"},
           {"\"float32\"", "\"int8\"", "dtype: 'int8', expected float32, float16 or bfloat16"},
           {"[8, 64]", "[8, 65]", "expected 260 for [8, 65]"},
           {"[8, 64]", "[8, -64]", "dimension -64"},
           {"[8, 64]", "[0, 64]", "dimension 0"},
           {"[8, 64]", "[281474976710656, 281474976710656]", "overflows 64 bits"},
           {"[8, 64]", "[8, 8, 8]", "only matrices are supported", ErrorCode::unsupported},
           {"[8, 64]", "8", "shape: found an integer, expected an array"},
           {"[8, 64]", "[8, 64], \"nested_offset\": 0.5", "has no 'nested_blocksize'"}}) {
    Store store("nf4");
    store.edit_state(row.from, row.to);
    expect_broken(store, row.fragment, row.code);
  }
}

TEST(BnbBroken, NestedState) {
  const EncodeOptions nested = {.double_quant = true};
  Store store("nf4", nested);
  store.edit_state("\"nested_blocksize\": 256", "\"nested_blocksize\": 64");
  expect_broken(store, "nested_blocksize 64 is not supported", ErrorCode::unsupported);
  store = Store("nf4", nested);
  store.edit_state("\"nested_dtype\": \"float32\"", "\"nested_dtype\": \"float16\"");
  expect_broken(store, "nested_dtype 'float16' is not supported", ErrorCode::unsupported);
  store = Store("nf4", nested);
  store.edit_state("\"nested_offset\": ", "\"nested_offset\": null, \"x\": ");
  expect_broken(store, "unknown key 'x'");
}

TEST(BnbBroken, StateTensor) {
  Store store("nf4");
  store.tensors["p.weight.quant_state.bitsandbytes__nf4"] = Tensor(DType::u8, {5000});
  expect_broken(store, "found U8 of 5000 bytes, expected U8 of at most 4096");
  store.tensors["p.weight.quant_state.bitsandbytes__nf4"] = Tensor(DType::i8, {80});
  expect_broken(store, "found I8 of 80 bytes");
  store = Store("nf4");
  store.tensors["p.weight.quant_state.bitsandbytes__nf5"] = store.tensors["p.weight.quant_state.bitsandbytes__nf4"];
  expect_broken(store, "unknown kind of quant_state", ErrorCode::unsupported);
  store = Store("nf4");
  store.set_text(
      "p.weight.quant_state.bitsandbytes__fp4",
      quant_state_text({.quant_type = "fp4", .block = 64, .dtype = DType::f32, .shape = {8, 64}, .nested_offset = {}}));
  expect_broken(store, "belongs to two quantized matrices");
}

TEST(BnbBroken, AnotherTableOfLevelsIsRefused) {
  Store store("nf4");
  Tensor map(DType::f32, {16});
  std::copy_n(store.tensors["p.weight.quant_map"].f32(), 16, map.f32());
  map.f32()[3] = std::nextafter(map.f32()[3], 0.0f);
  store.tensors["p.weight.quant_map"] = map;
  expect_broken(store, "its table of 16 values is not that of nf4", ErrorCode::unsupported);
}

TEST(BnbBroken, NestedMapOfTheFileIsUsed) {
  Store store("nf4", {.double_quant = true});
  Tensor map(DType::f32, {256});
  store.tensors["p.weight.nested_quant_map"] = map;  // all zero: every scale becomes the offset
  const QuantizedTensor w = store.load();
  EXPECT_EQ(w.part("nested_quant_map").f32()[255], 0.0f);
  EXPECT_EQ(decode(w).f32()[0],
            w.part("nested_offset").f32()[0] * w.part("quant_map").f32()[w.part("data").data<uint8_t>()[0] >> 4]);
}

TEST(BnbBroken, Int8) {
  Store store("int8");
  store.tensors["p.SCB"] = Tensor(DType::f32, {7});
  expect_broken(store, "'p.SCB': found F32 [7], expected F32 [8]");
  store.tensors["p.SCB"] = Tensor(DType::f16, {8});
  expect_broken(store, "'p.SCB': found F16 [8]");
  store.tensors.erase("p.SCB");
  expect_broken(store, "'p.weight': is packed (I8)");
  store = Store("int8");
  store.tensors.erase("p.weight");
  expect_broken(store, "has no 'p.weight'");
  store.tensors["p.weight"] = Tensor(DType::u8, {8, 64});
  expect_broken(store, "found U8 [8, 64], expected an I8 matrix");
  store.tensors["p.weight"] = Tensor(DType::i8, {512});
  expect_broken(store, "found I8 [512], expected an I8 matrix");
  store = Store("int8");
  store.tensors.erase("p.weight_format");
  EXPECT_EQ(store.load().rows(), 8);
  store.tensors["p.weight_format"] = Tensor(DType::u8, {});
  store.tensors["p.weight_format"].data<uint8_t>()[0] = 1;
  expect_broken(store, "'p.weight_format': only U8 with the value 0", ErrorCode::unsupported);
}

TEST(BnbBroken, Int8Dynamic) {
  Store store("int8-dynamic");
  store.tensors["p.weight_scale"] = Tensor(DType::f32, {3});
  expect_broken(store, "'p.weight_scale': found F32 [3], expected F32 [8]");
  store = Store("int8-dynamic");
  store.tensors["p.weight_zero_point"] = Tensor(DType::i32, {1});
  expect_broken(store, "'p.weight_zero_point': found I32 [1], expected I32 [8]");
  store = Store("int8-dynamic");
  store.tensors.erase("p.weight_zero_point");
  expect_broken(store, "has no 'p.weight_zero_point'");
  store = Store("int8-dynamic");
  store.tensors["p.weight_zero_point"].data<int32_t>()[2] = 1;
  expect_broken(store, "zero points other than 0 are not supported", ErrorCode::unsupported);
}

}  // namespace
}  // namespace nibble
