#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "io/raw_files.h"
#include "support/files.h"

namespace nibble {
namespace {

using test::expect_error;
using test::TempFolder;

Tensor counted(DType dtype, const Shape& shape) {
  Tensor tensor(dtype, shape);
  for (size_t i = 0; i < tensor.bytes(); ++i) tensor.data<uint8_t>()[i] = static_cast<uint8_t>(7 * i + 3);
  return tensor;
}

bool same(const Tensor& a, const Tensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::memcmp(a.raw(), b.raw(), a.bytes()) == 0;
}

TEST(Safetensors, WritesAndReadsEveryElementTypeAndShape) {
  const TempFolder folder;
  const std::vector<std::pair<std::string, Tensor>> tensors = {
      {"odd", counted(DType::u8, {7})},        {"matrix", counted(DType::bf16, {3, 5})},
      {"scalar", counted(DType::u8, {})},      {"empty", counted(DType::f32, {0, 4})},
      {"long", counted(DType::i64, {2})},      {"wide \"quoted\" \xc3\xa9", counted(DType::f32, {2, 2, 2})},
      {"flags", counted(DType::boolean, {3})}, {"half", counted(DType::f16, {1})},
      {"double", counted(DType::f64, {1})},    {"byte", counted(DType::i8, {5})},
  };
  std::vector<TensorDeclaration> declared;
  for (const auto& [name, tensor] : tensors) declared.push_back({name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(folder / "t.safetensors", declared, {{"format", "pt"}, {"note", "x"}});
  for (const auto& [name, tensor] : tensors) writer.write(name, tensor);
  writer.finish();
  EXPECT_EQ(std::filesystem::file_size(folder / "t.safetensors"), writer.bytes());

  const SafetensorsFile file(folder / "t.safetensors");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"note", "x"}}));
  EXPECT_EQ(file.entries().size(), tensors.size());
  for (const auto& [name, tensor] : tensors) EXPECT_TRUE(same(file.load(name), tensor)) << name;
  for (const SafetensorsEntry& entry : file.entries()) {
    EXPECT_EQ(entry.begin % dtype_bytes(*dtype_from_safetensors(entry.dtype)), 0u) << entry.name;
  }
}

TEST(Safetensors, HeaderIsPaddedToEightBytes) {
  const TempFolder folder;
  for (const std::string name : {"a", "ab", "abc", "abcdefg"}) {
    SafetensorsWriter writer(folder / name, {{name, DType::u8, {1}}}, {});
    writer.write(name, counted(DType::u8, {1}));
    writer.finish();
    EXPECT_EQ(writer.bytes() % 8, 1u) << name;
    EXPECT_EQ(SafetensorsFile(folder / name).find(name)->begin % 8, 0u) << name;
  }
}

TEST(Safetensors, SameTensorsGiveTheSameBytesInAnyOrderOfWriting) {
  const TempFolder folder;
  const Tensor a = counted(DType::u8, {3}), b = counted(DType::f32, {4});
  SafetensorsWriter forward(folder / "1", {{"a", a.dtype, a.shape}, {"b", b.dtype, b.shape}});
  forward.write("a", a);
  forward.write("b", b);
  forward.finish();
  SafetensorsWriter backward(folder / "2", {{"a", a.dtype, a.shape}, {"b", b.dtype, b.shape}});
  backward.write("b", b);
  backward.write("a", a);
  backward.finish();
  EXPECT_EQ(test::read_file(folder / "1"), test::read_file(folder / "2"));
}

TEST(Safetensors, WriterRefusesWhatWasNotDeclared) {
  const TempFolder folder;
  SafetensorsWriter writer(folder / "t", {{"a", DType::u8, {3}}, {"b", DType::f32, {1}}});
  expect_error(ErrorCode::internal, "'c'", [&] { writer.write("c", counted(DType::u8, {3})); });
  expect_error(ErrorCode::internal, "'a' uint8 [4]", [&] { writer.write("a", counted(DType::u8, {4})); });
  writer.write("a", counted(DType::u8, {3}));
  expect_error(ErrorCode::internal, "written before", [&] { writer.write("a", counted(DType::u8, {3})); });
  expect_error(ErrorCode::internal, "'b' was declared but not written", [&] { writer.finish(); });
  expect_error(ErrorCode::internal, "declared twice", [&] {
    SafetensorsWriter(folder / "u", {{"a", DType::u8, {1}}, {"a", DType::u8, {1}}});
  });
}

TEST(Safetensors, LinksAreFollowed) {
  const TempFolder folder;
  folder.write("blob", test::safetensors_bytes(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 2));
  std::filesystem::create_symlink("blob", folder / "model.safetensors");
  EXPECT_EQ(SafetensorsFile(folder / "model.safetensors").load("a").count(), 2);
}

TEST(Safetensors, ElementTypesThatTensorLacksAreListedButNotLoaded) {
  const TempFolder folder;
  const auto path = folder.write(
      "t",
      test::safetensors_bytes(
          R"({"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F4","shape":[4],"data_offsets":[2,4]}})",
          4));
  const SafetensorsFile file(path);
  EXPECT_EQ(file.find("a")->dtype, "F8_E4M3");
  EXPECT_EQ(file.load_bytes("b").count(), 2);
  expect_error(ErrorCode::unsupported, "F8_E4M3 are not supported; F32, F16", [&] { file.load("a"); });
  expect_error(ErrorCode::format, "has no tensor 'x'", [&] { file.load("x"); });
}

TEST(Safetensors, MappedTensorsHoldTheSameBytesAndNameTheirFile) {
  const test::TempFolder folder;
  Tensor large(DType::f32, {300, 100}), odd(DType::u8, {100'001});
  for (int64_t i = 0; i < large.count(); ++i) large.f32()[i] = static_cast<float>(i);
  SafetensorsWriter writer(folder / "m.safetensors",
                           {{"large", large.dtype, large.shape}, {"odd", odd.dtype, odd.shape}});
  writer.write("large", large);
  writer.write("odd", odd);
  writer.finish();
  const SafetensorsFile file(folder / "m.safetensors");
  const Tensor mapped = file.load("large", Residency::mapped), read = file.load("large");
  EXPECT_TRUE(mapped.buffer->is_mapped_file());
  EXPECT_FALSE(read.buffer->is_mapped_file());
  EXPECT_EQ(std::memcmp(mapped.raw(), read.raw(), read.bytes()), 0);
  EXPECT_EQ(std::string(mapped_file_at(mapped.raw() + 1000)), (folder / "m.safetensors").string());
  EXPECT_EQ(mapped_file_at(read.raw()), nullptr);
}

}  // namespace
}  // namespace nibble
