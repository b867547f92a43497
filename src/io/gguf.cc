#include "io/gguf.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>
#include <utility>

#include "core/checked.h"
#include "core/error.h"
#include "core/limits.h"
#include "io/gguf_reader.h"

namespace nibble {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF", little-endian
constexpr uint32_t kMaxTensorRank = 4;
constexpr uint64_t kDefaultAlignment = 32, kMaxAlignment = uint64_t{1} << 20;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 8 + 4 + 8;  // length of the name, rank, one dimension, type, offset
constexpr uint64_t kMinKeyBytes = 8 + 4 + 1;

struct Counts {
  uint64_t tensors, keys;
};

Counts read_header(GgufCursor& cursor, const std::string& file) {
  if (cursor.number<uint32_t>(file) != kMagic)
    fail(ErrorCode::format, file + ": does not begin with 'GGUF'; give a .gguf file or the folder of a model");
  const auto version = cursor.number<uint32_t>(file);
  if ((version & 0xffffu) == 0 && version != 0)
    fail(ErrorCode::unsupported, file + ": big-endian GGUF is not supported");
  if (version != 2 && version != 3) {
    fail(ErrorCode::unsupported, file + ": GGUF version " + std::to_string(version) + " is not supported; 2 and 3 are");
  }
  const uint64_t tensors = cursor.count(kMinTensorBytes, limits::kMaxKeys, file + ": tensor count");
  return {tensors, cursor.count(kMinKeyBytes, limits::kMaxKeys, file + ": metadata count")};
}

uint64_t alignment_of(const Json& metadata, const std::string& file) {
  const Json* value = metadata.find("general.alignment");
  if (value == nullptr) return kDefaultAlignment;
  const int64_t alignment = value->as_int(file + ": general.alignment");
  const bool good =
      alignment > 0 && alignment <= static_cast<int64_t>(kMaxAlignment) && (alignment & (alignment - 1)) == 0;
  if (!good)
    fail(ErrorCode::format,
         file + ": general.alignment " + std::to_string(alignment) + " is not a power of two up to 1048576");
  return static_cast<uint64_t>(alignment);
}

/// Dimensions lie in the file fastest first, which is torch's order reversed.
Shape read_shape(GgufCursor& cursor, const std::string& where) {
  const auto rank = cursor.number<uint32_t>(where);
  if (rank < 1 || rank > kMaxTensorRank) {
    fail(ErrorCode::format, where + ": rank " + std::to_string(rank) + ", expected 1 to 4");
  }
  Shape shape;
  for (uint32_t i = 0; i < rank; ++i) {
    const auto dim = cursor.number<uint64_t>(where);
    if (dim < 1 || dim > limits::kMaxDim) {
      fail(ErrorCode::format, where + ": dimension " + std::to_string(dim) + ", expected 1 to 2^48");
    }
    shape.insert(shape.begin(), static_cast<int64_t>(dim));
  }
  return shape;
}

uint64_t stored_bytes(const Shape& shape, const GgufType& type, const std::string& where) {
  const auto cols = static_cast<uint64_t>(shape.back());
  if (cols % type.block_values != 0) {
    fail(ErrorCode::format, where + ": rows of " + std::to_string(cols) + " values, expected a multiple of " +
                                std::to_string(type.block_values) + " for " + std::string(type.name));
  }
  uint64_t blocks = cols / type.block_values;
  for (size_t i = 0; i + 1 < shape.size(); ++i) blocks = checked_mul(blocks, static_cast<uint64_t>(shape[i]), where);
  return checked_mul(blocks, type.block_bytes, where);
}

/// begin holds the offset in the data section until place_tensors makes it one in the file.
GgufTensor read_tensor_info(GgufCursor& cursor, const std::string& file) {
  GgufTensor tensor;
  tensor.name = cursor.text(limits::kMaxNameBytes, file + ": name of a tensor");
  const std::string where = file + ": tensor '" + printable(tensor.name, 200) + "'";
  tensor.shape = read_shape(cursor, where);
  tensor.type = &find_gguf_type(cursor.number<uint32_t>(where), where);
  tensor.begin = cursor.number<uint64_t>(where);
  tensor.bytes = stored_bytes(tensor.shape, *tensor.type, where);
  return tensor;
}

uint64_t aligned(uint64_t position, uint64_t alignment, const std::string& where) {
  return checked_add(position, alignment - 1, where) / alignment * alignment;
}

/// Every tensor must begin where the one before it ends, padded.
void place_tensors(std::vector<GgufTensor>& tensors, uint64_t data_begin, uint64_t alignment, const File& file) {
  uint64_t expected = 0;
  for (GgufTensor& tensor : tensors) {
    const std::string where = file.name() + ": tensor '" + printable(tensor.name, 200) + "'";
    if (tensor.begin != expected) {
      fail(ErrorCode::format,
           where + ": offset " + std::to_string(tensor.begin) + ", expected " + std::to_string(expected));
    }
    tensor.begin = checked_add(data_begin, tensor.begin, where);
    const uint64_t end = checked_add(tensor.begin, tensor.bytes, where);
    if (end > file.size()) {
      fail(ErrorCode::format, where + ": ends at byte " + std::to_string(end) + ", the file has " +
                                  std::to_string(file.size()) + "; download it again?");
    }
    expected = aligned(end - data_begin, alignment, where);
  }
}

constexpr std::array<std::pair<std::string_view, DType>, 8> kDenseTypes = {{
    {"f32", DType::f32},
    {"f16", DType::f16},
    {"bf16", DType::bf16},
    {"f64", DType::f64},
    {"i8", DType::i8},
    {"i16", DType::i16},
    {"i32", DType::i32},
    {"i64", DType::i64},
}};

std::optional<DType> dense_type(std::string_view name) {
  for (const auto& [dense, dtype] : kDenseTypes) {
    if (dense == name) return dtype;
  }
  return std::nullopt;
}

}  // namespace

std::string GgufTensor::format_name() const {
  const std::optional<DType> dtype = dense_type(type->name);
  const bool has_format = dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16;
  return std::string(has_format ? dtype_name(*dtype) : type->name);
}

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path) {
  GgufCursor cursor(file_);
  const Counts counts = read_header(cursor, file_.name());
  metadata_ = read_gguf_metadata(cursor, counts.keys, file_.name());
  const uint64_t alignment = alignment_of(metadata_, file_.name());
  tensors_.reserve(counts.tensors);
  for (uint64_t i = 0; i < counts.tensors; ++i) tensors_.push_back(read_tensor_info(cursor, file_.name()));
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!index_.emplace(tensors_[i].name, i).second) {
      fail(ErrorCode::format, file_.name() + ": tensor '" + printable(tensors_[i].name, 200) + "' is there twice");
    }
  }
  place_tensors(tensors_, aligned(cursor.position(), alignment, file_.name()), alignment, file_);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

Tensor GgufFile::load_raw(std::string_view name, Residency residency) const {
  const GgufTensor* info = find(name);
  if (info == nullptr) fail(ErrorCode::format, file_.name() + ": has no tensor '" + printable(name, 200) + "'");
  Tensor tensor;
  if (const std::optional<DType> dtype = dense_type(info->type->name)) {
    tensor = Tensor::described(*dtype, info->shape);
  } else {
    const uint64_t row_bytes =
        static_cast<uint64_t>(info->shape.back()) / info->type->block_values * info->type->block_bytes;
    tensor =
        Tensor::described(DType::u8, {static_cast<int64_t>(info->bytes / row_bytes), static_cast<int64_t>(row_bytes)});
  }
  const bool unaligned = info->begin % dtype_bytes(tensor.dtype) != 0;
  if (unaligned && residency == Residency::mapped) residency = Residency::memory;
  tensor.buffer = file_.buffer(info->begin, tensor.bytes(), residency);
  return tensor;
}

namespace {

constexpr int64_t kMaxParts = 10'000;

int64_t metadata_int(const GgufFile& file, std::string_view key, int64_t absent) {
  const Json* value = file.metadata().find(key);
  return value == nullptr ? absent : value->as_int(file.path().string() + ": " + std::string(key));
}

std::string part_suffix(int64_t number, int64_t count) {
  std::array<char, 40> text = {};
  std::snprintf(text.data(), text.size(), "-%05d-of-%05d.gguf", static_cast<int>(number), static_cast<int>(count));
  return text.data();
}

void check_part(const GgufFile& part, int64_t number, int64_t count) {
  if (metadata_int(part, "split.count", 1) != count || metadata_int(part, "split.no", -1) != number) {
    fail(ErrorCode::format, part.path().string() + ": is not part " + std::to_string(number + 1) + " of " +
                                std::to_string(count) + "; are the parts of one model in this folder?");
  }
}

}  // namespace

std::vector<GgufFile> open_gguf_parts(const std::filesystem::path& first) {
  std::vector<GgufFile> parts;
  parts.emplace_back(first);
  const int64_t count = metadata_int(parts[0], "split.count", 1);
  if (count <= 1) return parts;
  const std::string file = first.string(), suffix = part_suffix(1, count);
  if (count > kMaxParts) fail(ErrorCode::format, file + ": split.count " + std::to_string(count) + " is too large");
  if (!file.ends_with(suffix)) {
    fail(ErrorCode::format,
         file + ": is one of " + std::to_string(count) + " parts; open the one that ends with " + suffix);
  }
  check_part(parts[0], 0, count);
  const std::string stem = file.substr(0, file.size() - suffix.size());
  for (int64_t i = 1; i < count; ++i) {
    parts.emplace_back(stem + part_suffix(i + 1, count));
    check_part(parts.back(), i, count);
  }
  int64_t tensors = 0;
  for (const GgufFile& part : parts) tensors += static_cast<int64_t>(part.tensors().size());
  if (metadata_int(parts[0], "split.tensors.count", tensors) != tensors) {
    fail(ErrorCode::format, file + ": the parts hold " + std::to_string(tensors) + " tensors, expected " +
                                std::to_string(metadata_int(parts[0], "split.tensors.count", 0)));
  }
  return parts;
}

}  // namespace nibble
