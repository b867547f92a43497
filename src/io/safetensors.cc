#include "io/safetensors.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <unordered_set>

#include "core/checked.h"
#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"

namespace nibble {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors are read as they lie in the file");

constexpr uint64_t kLengthBytes = 8;
constexpr std::string_view kMetadataKey = "__metadata__";

struct StoredType {
  std::string_view name;
  uint64_t bits;
};

// Everything that the format defines; Tensor holds only some of them.
constexpr std::array<StoredType, 22> kStoredTypes = {{
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},
}};

uint64_t stored_bits(const std::string& dtype, const std::string& where) {
  std::string known;
  for (const StoredType& type : kStoredTypes) {
    if (type.name == dtype) return type.bits;
    known += (known.empty() ? "" : ", ") + std::string(type.name);
  }
  fail(ErrorCode::format, where + ": unknown dtype '" + printable(dtype, 40) + "', known are " + known);
}

const Json& member(const Json& object, std::string_view key, const std::string& where) {
  const Json* value = object.find(key);
  if (value == nullptr) fail(ErrorCode::format, where + ": has no '" + std::string(key) + "'");
  return *value;
}

uint64_t unsigned_integer(const Json& value, const std::string& where) {
  if (!value.is_integer())
    fail(ErrorCode::format, where + ": found " + std::string(value.type_name()) + ", expected an integer");
  const int64_t number = value.as_int(where);
  if (number < 0) fail(ErrorCode::format, where + ": is negative (" + std::to_string(number) + ")");
  return static_cast<uint64_t>(number);
}

Shape parse_shape(const Json& value, const std::string& where) {
  const Json::Array& dims = value.as_array(where);
  if (dims.size() > limits::kMaxRank) {
    fail(ErrorCode::format,
         where + ": rank " + std::to_string(dims.size()) + ", expected at most " + std::to_string(limits::kMaxRank));
  }
  Shape shape;
  for (const Json& dim : dims) {
    const uint64_t size = unsigned_integer(dim, where);
    if (size > limits::kMaxDim)
      fail(ErrorCode::format, where + ": dimension " + std::to_string(size) + " is too large");
    shape.push_back(static_cast<int64_t>(size));
  }
  return shape;
}

/// The product must not overflow even when a later dimension is 0, so that the order of dimensions does not matter.
uint64_t shape_bytes(const Shape& shape, uint64_t bits_per_element, const std::string& where) {
  uint64_t bits = bits_per_element;
  bool is_empty = false;
  for (const int64_t dim : shape) {
    is_empty = is_empty || dim == 0;
    if (dim != 0) bits = checked_mul(bits, static_cast<uint64_t>(dim), where);
  }
  if (is_empty) return 0;
  if (bits % 8 != 0) fail(ErrorCode::format, where + ": " + std::to_string(bits) + " bits do not end on a byte");
  return bits / 8;
}

SafetensorsEntry parse_entry(const std::string& name, const Json& value, uint64_t data_begin, const std::string& file) {
  const std::string where = file + ": tensor '" + printable(name, 200) + "'";
  if (name.size() > limits::kMaxNameBytes) fail(ErrorCode::format, where + ": name is too long");
  value.as_object(where);
  SafetensorsEntry entry;
  entry.name = name;
  entry.dtype = member(value, "dtype", where).as_string(where + " dtype");
  entry.shape = parse_shape(member(value, "shape", where), where + " shape");
  const Json::Array& offsets = member(value, "data_offsets", where).as_array(where + " data_offsets");
  if (offsets.size() != 2) fail(ErrorCode::format, where + " data_offsets: expected two integers");
  const uint64_t begin = unsigned_integer(offsets[0], where + " data_offsets");
  const uint64_t end = unsigned_integer(offsets[1], where + " data_offsets");
  if (begin > end)
    fail(ErrorCode::format, where + ": begins at " + std::to_string(begin) + " behind its end " + std::to_string(end));
  const uint64_t needed = shape_bytes(entry.shape, stored_bits(entry.dtype, where), where);
  if (end - begin != needed) {
    fail(ErrorCode::format, where + ": " + std::to_string(end - begin) + " bytes, expected " + std::to_string(needed) +
                                " for " + entry.dtype + " " + shape_text(entry.shape));
  }
  entry.begin = checked_add(begin, data_begin, where);
  entry.end = checked_add(end, data_begin, where);
  return entry;
}

std::map<std::string, std::string> parse_metadata(const Json& value, const std::string& file) {
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.as_object(file + ": __metadata__")) {
    metadata[key] = text.as_string(file + ": __metadata__ '" + printable(key, 200) + "'");
  }
  return metadata;
}

/// The data must be covered exactly: no hole, no overlap, nothing behind the last tensor.
void check_coverage(const std::vector<SafetensorsEntry>& entries, uint64_t data_begin, const File& file) {
  uint64_t position = data_begin;
  for (const SafetensorsEntry& entry : entries) {
    if (entry.begin != position) {
      fail(ErrorCode::format, file.name() + ": tensor '" + printable(entry.name, 200) + "' begins at byte " +
                                  std::to_string(entry.begin) + ", expected " + std::to_string(position) +
                                  " where the tensor before it ends");
    }
    position = entry.end;
  }
  if (position != file.size()) {
    fail(ErrorCode::format, file.name() + ": the tensors end at byte " + std::to_string(position) + ", the file has " +
                                std::to_string(file.size()) + "; download it again?");
  }
}

std::string read_header(const File& file) {
  if (file.size() < kLengthBytes)
    fail(ErrorCode::format,
         file.name() + ": " + std::to_string(file.size()) + " bytes are too few for a safetensors file");
  uint64_t length = 0;
  file.read_at(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length > limits::kSafetensorsHeaderBytes || length > file.size() - kLengthBytes) {
    fail(ErrorCode::format, file.name() + ": header of " + std::to_string(length) + " bytes, the file has " +
                                std::to_string(file.size()) + " and at most " +
                                std::to_string(limits::kSafetensorsHeaderBytes) +
                                " are allowed; not a safetensors file?");
  }
  std::string text(length, '\0');
  file.read_at(kLengthBytes, std::as_writable_bytes(std::span(text)));
  const size_t start = text.find_first_not_of(" \t\r\n");
  if (start == std::string::npos || text[start] != '{') {
    fail(ErrorCode::format, file.name() + ": header does not begin with '{'; not a safetensors file?");
  }
  return text;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const std::string text = read_header(file_);
  const uint64_t data_begin = kLengthBytes + text.size();
  const Json header = Json::parse(text, file_.name() + ": header", limits::kMaxHeaderDepth);
  const Json::Object& members = header.as_object(file_.name() + ": header");
  if (members.size() > limits::kMaxKeys) fail(ErrorCode::format, file_.name() + ": more than a million tensors");
  entries_.reserve(members.size());
  for (const auto& [name, value] : members) {
    if (name == kMetadataKey) {
      metadata_ = parse_metadata(value, file_.name());
    } else {
      entries_.push_back(parse_entry(name, value, data_begin, file_.name()));
    }
  }
  std::stable_sort(entries_.begin(), entries_.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_coverage(entries_, data_begin, file_);
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

const SafetensorsEntry* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

const SafetensorsEntry& SafetensorsFile::require(std::string_view name) const {
  const SafetensorsEntry* entry = find(name);
  if (entry == nullptr) fail(ErrorCode::format, file_.name() + ": has no tensor '" + printable(name, 200) + "'");
  return *entry;
}

namespace {

/// A tensor over bytes of a file. Elements that are not aligned in the file are copied whatever was asked for.
Tensor tensor_at(const File& file, DType dtype, Shape shape, uint64_t begin, Residency residency) {
  Tensor tensor = Tensor::described(dtype, std::move(shape));
  const bool unaligned = begin % dtype_bytes(dtype) != 0;
  if (unaligned && residency == Residency::mapped) residency = Residency::memory;
  tensor.buffer = file.buffer(begin, tensor.bytes(), residency);
  return tensor;
}

}  // namespace

Tensor SafetensorsFile::load(std::string_view name, Residency residency) const {
  const SafetensorsEntry& entry = require(name);
  const std::optional<DType> dtype = dtype_from_safetensors(entry.dtype);
  if (!dtype) {
    fail(ErrorCode::unsupported, file_.name() + ": tensor '" + printable(name, 200) + "': elements of type " +
                                     entry.dtype +
                                     " are not supported; F32, F16, BF16, F64, I8, U8, I16, I32, I64 and "
                                     "BOOL are");
  }
  return tensor_at(file_, *dtype, entry.shape, entry.begin, residency);
}

Tensor SafetensorsFile::load_bytes(std::string_view name, Residency residency) const {
  const SafetensorsEntry& entry = require(name);
  return tensor_at(file_, DType::u8, {narrow<int64_t>(entry.bytes(), file_.name())}, entry.begin, residency);
}

namespace {

std::string header_text(const std::vector<const TensorDeclaration*>& order,
                        const std::map<std::string, std::string>& metadata) {
  Json::Object members;
  if (!metadata.empty()) {
    Json::Object entries;
    for (const auto& [key, value] : metadata) entries.emplace_back(key, Json(value));
    members.emplace_back(std::string(kMetadataKey), Json(std::move(entries)));
  }
  uint64_t begin = 0;
  for (const TensorDeclaration* tensor : order) {
    const uint64_t bytes = shape_bytes(tensor->shape, dtype_bytes(tensor->dtype) * 8, tensor->name);
    Json::Array shape;
    for (const int64_t dim : tensor->shape) shape.emplace_back(dim);
    members.emplace_back(tensor->name,
                         Json::object({{"dtype", Json(safetensors_name(tensor->dtype))},
                                       {"shape", Json(std::move(shape))},
                                       {"data_offsets", Json::array({Json(begin), Json(begin + bytes)})}}));
    begin += bytes;
  }
  std::string text = Json(std::move(members)).dump();
  text.resize(static_cast<size_t>(round_up(static_cast<int64_t>(text.size()), 8)), ' ');
  return text;
}

/// Those with wider elements first.
std::vector<const TensorDeclaration*> file_order(const std::vector<TensorDeclaration>& tensors) {
  std::vector<const TensorDeclaration*> order;
  for (const TensorDeclaration& tensor : tensors) order.push_back(&tensor);
  std::stable_sort(order.begin(), order.end(), [](const TensorDeclaration* a, const TensorDeclaration* b) {
    return dtype_bytes(a->dtype) > dtype_bytes(b->dtype);
  });
  return order;
}

}  // namespace

uint64_t safetensors_file_bytes(const std::vector<TensorDeclaration>& tensors,
                                const std::map<std::string, std::string>& metadata) {
  uint64_t bytes = kLengthBytes + header_text(file_order(tensors), metadata).size();
  for (const TensorDeclaration& tensor : tensors) {
    bytes += shape_bytes(tensor.shape, dtype_bytes(tensor.dtype) * 8, tensor.name);
  }
  return bytes;
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, const std::vector<TensorDeclaration>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : out_(path), name_(path.string()) {
  const std::vector<const TensorDeclaration*> order = file_order(tensors);
  const std::string header = header_text(order, metadata);
  bytes_ = kLengthBytes + header.size();
  for (const TensorDeclaration* tensor : order) {
    if (!slots_.emplace(tensor->name, Slot{*tensor, bytes_}).second) {
      fail(ErrorCode::internal, name_ + ": tensor '" + tensor->name + "' is declared twice");
    }
    bytes_ += shape_bytes(tensor->shape, dtype_bytes(tensor->dtype) * 8, tensor->name);
  }
  const uint64_t length = header.size();
  out_.write(std::as_bytes(std::span(&length, 1)));
  out_.write(header);
}

void SafetensorsWriter::write(const std::string& name, const Tensor& tensor) {
  const auto slot = slots_.find(name);
  if (slot == slots_.end() || slot->second.written || slot->second.tensor.dtype != tensor.dtype ||
      slot->second.tensor.shape != tensor.shape) {
    fail(ErrorCode::internal, name_ + ": tensor '" + name + "' " + std::string(dtype_name(tensor.dtype)) + " " +
                                  shape_text(tensor.shape) + " was not declared so, or was written before");
  }
  out_.write_at(slot->second.begin, {tensor.raw(), tensor.bytes()});
  slot->second.written = true;
}

void SafetensorsWriter::finish() {
  for (const auto& [name, slot] : slots_) {
    if (!slot.written) fail(ErrorCode::internal, name_ + ": tensor '" + name + "' was declared but not written");
  }
  out_.close();
}

}  // namespace nibble
