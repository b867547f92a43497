#include "io/bnb_names.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "core/checked.h"
#include "core/error.h"
#include "io/quant_state.h"

namespace nibble {
namespace {

constexpr std::string_view kStateMark = ".quant_state.";
constexpr uint64_t kMaxStateBytes = 4096;
constexpr int64_t kLevels = 16, kNestedLevels = 256, kNestedBlockSize = 256;

struct StateName {
  std::string_view suffix;  // after ".quant_state."
  std::string_view format;
};

constexpr std::array<StateName, 3> kStateNames = {{
    {"bitsandbytes__nf4", "nf4"},
    {"bitsandbytes__fp4", "fp4"},
    {"nibble__int4", "int4"},
}};

/// The tensors of a folder by name, and which of them belong to a quantized matrix already.
class Pieces {
 public:
  explicit Pieces(const std::vector<StoredTensor>& stored) {
    for (const StoredTensor& tensor : stored) by_name_.emplace(tensor.name, &tensor);
  }

  const StoredTensor* find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : found->second;
  }

  const StoredTensor& require(const std::string& name, const std::string& where) const {
    const StoredTensor* tensor = find(name);
    if (tensor == nullptr) fail(ErrorCode::format, where + ": has no '" + printable(name, 200) + "'");
    return *tensor;
  }

 private:
  std::unordered_map<std::string_view, const StoredTensor*> by_name_;
};

std::string where_of(const StoredTensor& tensor) { return tensor.file + ": '" + printable(tensor.name, 200) + "'"; }

void require_type(const StoredTensor& tensor, std::string_view dtype, const Shape& shape) {
  if (tensor.dtype != dtype || tensor.shape != shape) {
    fail(ErrorCode::format, where_of(tensor) + ": found " + tensor.dtype + " " + shape_text(tensor.shape) +
                                ", expected " + std::string(dtype) + " " + shape_text(shape));
  }
}

void add_part(FoldedWeight& weight, std::string_view part, const StoredTensor& tensor) {
  weight.pieces.emplace_back(part, tensor.name);
  weight.bytes += tensor.bytes;
}

void consume(FoldedWeight& weight, const StoredTensor& tensor) {
  weight.consumed.push_back(tensor.name);
  weight.bytes += tensor.bytes;
}

std::string read_text(const ReadStored& read, const std::string& name) {
  const Tensor bytes = read(name, ReadAs::bytes);
  return {bytes.data<char>(), bytes.bytes()};
}

QuantState read_state(const StoredTensor& tensor, std::string_view format, const ReadStored& read) {
  if (tensor.dtype != "U8" || tensor.bytes > kMaxStateBytes) {
    fail(ErrorCode::format, where_of(tensor) + ": found " + tensor.dtype + " of " + std::to_string(tensor.bytes) +
                                " bytes, expected U8 of at most 4096");
  }
  QuantState state = parse_quant_state(read_text(read, tensor.name), where_of(tensor));
  if (state.quant_type != format) {
    fail(ErrorCode::format, where_of(tensor) + ": quant_type '" + printable(state.quant_type, 100) + "', expected '" +
                                std::string(format) + "'");
  }
  return state;
}

/// absmax and what belongs to it.
void add_scales(FoldedWeight& weight, const Pieces& pieces, int64_t blocks, const std::string& where) {
  const std::string& base = weight.name;
  const bool nested = weight.empty.double_quant;
  const StoredTensor& absmax = pieces.require(base + ".absmax", where);
  require_type(absmax, nested ? "U8" : "F32", {blocks});
  add_part(weight, "absmax", absmax);
  const StoredTensor& levels = pieces.require(base + ".quant_map", where);
  require_type(levels, "F32", {kLevels});
  add_part(weight, "quant_map", levels);
  if (!nested) {
    for (const char* name : {".nested_absmax", ".nested_quant_map"}) {
      const StoredTensor* extra = pieces.find(base + name);
      if (extra != nullptr) fail(ErrorCode::format, where_of(*extra) + ": but its quant_state has no nested_offset");
    }
    return;
  }
  const StoredTensor& nested_absmax = pieces.require(base + ".nested_absmax", where);
  require_type(nested_absmax, "F32", {ceil_div(blocks, kNestedBlockSize)});
  add_part(weight, "nested_absmax", nested_absmax);
  const StoredTensor& map = pieces.require(base + ".nested_quant_map", where);
  require_type(map, "F32", {kNestedLevels});
  add_part(weight, "nested_quant_map", map);
}

FoldedWeight fold_4bit(const StoredTensor& state_tensor, size_t mark, const Pieces& pieces, const ReadStored& read) {
  const std::string where = where_of(state_tensor);
  const std::string suffix = state_tensor.name.substr(mark + kStateMark.size());
  const auto row =
      std::find_if(kStateNames.begin(), kStateNames.end(), [&](const auto& r) { return r.suffix == suffix; });
  if (row == kStateNames.end()) {
    fail(ErrorCode::unsupported, where +
                                     ": unknown kind of quant_state; bitsandbytes__nf4, bitsandbytes__fp4 and "
                                     "nibble__int4 are known");
  }
  const QuantState state = read_state(state_tensor, row->format, read);
  FoldedWeight weight;
  weight.name = state_tensor.name.substr(0, mark);
  weight.empty = {.format = &find_format(row->format),
                  .shape = state.shape,
                  .dtype = state.dtype,
                  .block = state.block,
                  .double_quant = state.nested_offset.has_value(),
                  .parts = {}};
  weight.nested_offset = static_cast<float>(state.nested_offset.value_or(0.0));
  const int64_t count = element_count(state.shape);
  const StoredTensor& data = pieces.require(weight.name, where);
  // The packed bytes may be dressed up as any element type (bnb_4bit_quant_storage).
  if (data.bytes != static_cast<uint64_t>(ceil_div(count, 2))) {
    fail(ErrorCode::format, where_of(data) + ": " + std::to_string(data.bytes) + " bytes, expected " +
                                std::to_string(ceil_div(count, 2)) + " for " + shape_text(state.shape) + " in 4 bits");
  }
  add_part(weight, "data", data);
  add_scales(weight, pieces, ceil_div(count, state.block), where);
  consume(weight, state_tensor);
  return weight;
}

const StoredTensor& require_int8_matrix(const std::string& name, const Pieces& pieces, const std::string& where) {
  const StoredTensor& data = pieces.require(name, where);
  if (data.dtype != "I8" || data.shape.size() != 2 || data.bytes == 0) {
    fail(ErrorCode::format,
         where_of(data) + ": found " + data.dtype + " " + shape_text(data.shape) + ", expected an I8 matrix");
  }
  return data;
}

FoldedWeight fold_int8(const StoredTensor& scb, const std::string& prefix, const Pieces& pieces,
                       const ReadStored& read) {
  FoldedWeight weight;
  weight.name = prefix + ".weight";
  const StoredTensor& data = require_int8_matrix(weight.name, pieces, where_of(scb));
  require_type(scb, "F32", {data.shape[0]});
  weight.empty = {.format = &find_format("int8"), .shape = data.shape, .dtype = DType::f32, .parts = {}};
  add_part(weight, "CB", data);
  add_part(weight, "SCB", scb);
  if (const StoredTensor* layout = pieces.find(prefix + ".weight_format")) {
    const bool row_major = layout->dtype == "U8" && layout->bytes == 1 && read_text(read, layout->name)[0] == 0;
    if (!row_major) {
      fail(ErrorCode::unsupported, where_of(*layout) +
                                       ": only U8 with the value 0 (rows in order) is supported; save "
                                       "the model again with a newer bitsandbytes");
    }
    consume(weight, *layout);
  }
  return weight;
}

FoldedWeight fold_int8_dynamic(const StoredTensor& scale, const std::string& prefix, const Pieces& pieces) {
  FoldedWeight weight;
  weight.name = prefix + ".weight";
  const StoredTensor& data = require_int8_matrix(weight.name, pieces, where_of(scale));
  require_type(scale, "F32", {scale.shape == Shape{1} ? 1 : data.shape[0]});
  const StoredTensor& zero_point = pieces.require(weight.name + "_zero_point", where_of(scale));
  require_type(zero_point, "I32", scale.shape);
  weight.empty = {.format = &find_format("int8-dynamic"), .shape = data.shape, .dtype = DType::f32, .parts = {}};
  add_part(weight, "data", data);
  add_part(weight, "scale", scale);
  add_part(weight, "zero_point", zero_point);
  if (const StoredTensor* input_scale = pieces.find(weight.name + "_input_scale")) {
    require_type(*input_scale, "F32", {1});
    const StoredTensor& input_zero_point = pieces.require(weight.name + "_input_zero_point", where_of(*input_scale));
    require_type(input_zero_point, "I32", {1});
    add_part(weight, "input_scale", *input_scale);
    add_part(weight, "input_zero_point", input_zero_point);
  }
  return weight;
}

/// The text before `suffix`, when the name has both.
std::optional<std::string> without_suffix(const std::string& name, std::string_view suffix) {
  if (name.size() <= suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

/// A piece that no matrix took, or a packed matrix whose pieces are missing.
void check_leftover(const StoredTensor& tensor) {
  static constexpr std::array<std::string_view, 9> kPieceSuffixes = {
      ".weight.absmax", ".weight.quant_map",  ".weight.nested_absmax", ".weight.nested_quant_map", ".weight_format",
      ".weight_scale",  ".weight_zero_point", ".weight_input_scale",   ".weight_input_zero_point"};
  for (const std::string_view suffix : kPieceSuffixes) {
    if (tensor.name.ends_with(suffix)) {
      fail(ErrorCode::format, where_of(tensor) + ": is a piece of a quantized matrix whose other pieces are missing");
    }
  }
  if (tensor.name.ends_with(".weight") && (tensor.dtype == "U8" || tensor.dtype == "I8")) {
    fail(ErrorCode::format,
         where_of(tensor) + ": is packed (" + tensor.dtype + "), but the tensors that say how are missing");
  }
}

/// The table must be the one that the kernels know, value by value; 0 and -0 count as equal.
void check_levels(const Tensor& levels, const Format& format, const std::string& where) {
  const QuantizedTensor known = format.encode({Tensor(DType::f32, {1, kLevels})}, {.block = 64});
  if (!std::equal(levels.f32(), levels.f32() + kLevels, known.part("quant_map").f32())) {
    fail(ErrorCode::unsupported, where + ": its table of 16 values is not that of " + std::string(format.name));
  }
}

void check_zero_points(const Tensor& zero_points, const std::string& where) {
  const auto* values = zero_points.data<int32_t>();
  if (std::any_of(values, values + zero_points.count(), [](int32_t z) { return z != 0; })) {
    fail(ErrorCode::unsupported, where + ": zero points other than 0 are not supported");
  }
}

void check_input_range(const Tensor& piece, const std::string& part, const std::string& where) {
  const bool scale = part == "input_scale";
  const double value = scale ? static_cast<double>(piece.f32()[0]) : piece.data<int32_t>()[0];
  const bool good = scale ? value > 0 && std::isfinite(value) : value >= 0 && value <= 255;
  if (!good) {
    fail(ErrorCode::format, where + ": found " + std::to_string(value) + ", expected " +
                                (scale ? "a positive number" : "a code from 0 to 255"));
  }
}

}  // namespace

std::vector<FoldedWeight> fold_pieces(const std::vector<StoredTensor>& stored, const ReadStored& read) {
  const Pieces pieces(stored);
  std::vector<FoldedWeight> folded;
  std::unordered_set<std::string> taken;
  for (const StoredTensor& tensor : stored) {
    const size_t mark = tensor.name.rfind(kStateMark);
    if (mark != std::string::npos) {
      folded.push_back(fold_4bit(tensor, mark, pieces, read));
    } else if (const auto prefix = without_suffix(tensor.name, ".SCB")) {
      folded.push_back(fold_int8(tensor, *prefix, pieces, read));
    } else if (const auto module = without_suffix(tensor.name, ".weight_scale")) {
      folded.push_back(fold_int8_dynamic(tensor, *module, pieces));
    } else {
      continue;
    }
    const FoldedWeight& weight = folded.back();
    for (const auto& piece : weight.pieces) {
      if (!taken.insert(piece.second).second) {
        fail(ErrorCode::format,
             tensor.file + ": '" + printable(piece.second, 200) + "' belongs to two quantized matrices");
      }
    }
    taken.insert(weight.consumed.begin(), weight.consumed.end());
  }
  for (const StoredTensor& tensor : stored) {
    if (!taken.contains(tensor.name)) check_leftover(tensor);
  }
  return folded;
}

QuantizedTensor load_folded(const FoldedWeight& weight, const ReadStored& read) {
  QuantizedTensor w = weight.empty;
  for (const auto& [part, name] : weight.pieces) {
    const bool packed_4bit = part == "data" && w.block > 0;
    Tensor piece = read(name, packed_4bit ? ReadAs::bytes : ReadAs::stored);
    if (packed_4bit) piece = piece.reshaped({piece.count(), 1});
    if (part == "quant_map") check_levels(piece, *w.format, "'" + printable(name, 200) + "'");
    if (part == "zero_point") check_zero_points(piece, "'" + printable(name, 200) + "'");
    if (part.starts_with("input_")) check_input_range(piece, part, "'" + printable(name, 200) + "'");
    w.parts[part] = std::move(piece);
  }
  if (w.double_quant) w.parts["nested_offset"] = Tensor::from(std::span(&weight.nested_offset, 1));
  return w;
}

namespace {

/// A stored name is the module's (".weight" cut off) or the weight's, and a suffix.
struct PieceName {
  std::string_view part;
  std::string_view suffix;
};

constexpr size_t kLongestOffset = 24;  // "-1.1754943508222875e-38" has 23 characters

constexpr std::array<PieceName, 5> k4bitPieces = {{{"data", ""},
                                                   {"absmax", ".absmax"},
                                                   {"quant_map", ".quant_map"},
                                                   {"nested_absmax", ".nested_absmax"},
                                                   {"nested_quant_map", ".nested_quant_map"}}};
constexpr std::array<PieceName, 5> kInt8DynamicPieces = {{{"data", ""},
                                                          {"scale", "_scale"},
                                                          {"zero_point", "_zero_point"},
                                                          {"input_scale", "_input_scale"},
                                                          {"input_zero_point", "_input_zero_point"}}};

using NamedTensors = std::vector<std::pair<std::string, Tensor>>;

NamedTensors named_parts(const std::string& weight_name, const QuantizedTensor& w, std::span<const PieceName> names) {
  NamedTensors out;
  for (const PieceName& name : names) {
    if (w.has(name.part)) out.emplace_back(weight_name + std::string(name.suffix), w.part(name.part));
  }
  return out;
}

NamedTensors int8_pieces(const std::string& weight_name, const QuantizedTensor& w) {
  const std::optional<std::string> prefix = without_suffix(weight_name, ".weight");
  if (!prefix) fail(ErrorCode::internal, "'" + weight_name + "' does not end with .weight");
  return {
      {weight_name, w.part("CB")}, {*prefix + ".SCB", w.part("SCB")}, {weight_name + "_format", Tensor(DType::u8, {})}};
}

NamedTensors pieces_4bit(const std::string& weight_name, const QuantizedTensor& w, std::string_view state_suffix) {
  NamedTensors out = named_parts(weight_name, w, k4bitPieces);
  QuantState state = {.quant_type = std::string(w.format->name),
                      .block = w.block,
                      .dtype = w.dtype,
                      .shape = w.shape,
                      .nested_offset = std::nullopt};
  if (w.double_quant) {
    const Tensor& offset = w.part("nested_offset");
    state.nested_offset = offset.empty() ? 0.0 : static_cast<double>(offset.f32()[0]);
  }
  std::string text = quant_state_text(state);
  // The offset has as many digits as it needs; spaces at the end of the JSON make the size one of the shape alone, so
  // that a file's header can be written before the first matrix is encoded.
  if (state.nested_offset) text.append(kLongestOffset - python_repr(*state.nested_offset).size(), ' ');
  const std::span<const uint8_t> bytes(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  out.emplace_back(weight_name + std::string(kStateMark) + std::string(state_suffix),
                   Tensor::from(bytes, {static_cast<int64_t>(text.size())}));
  return out;
}

}  // namespace

std::vector<std::pair<std::string, Tensor>> stored_pieces(const std::string& weight_name, const QuantizedTensor& w) {
  for (const StateName& row : kStateNames) {
    if (row.format == w.format->name) return pieces_4bit(weight_name, w, row.suffix);
  }
  if (w.format->name == "int8") return int8_pieces(weight_name, w);
  if (w.format->name == "int8-dynamic") return named_parts(weight_name, w, kInt8DynamicPieces);
  fail(ErrorCode::unsupported,
       "'" + weight_name + "': format " + std::string(w.format->name) + " cannot be written to safetensors files");
}

}  // namespace nibble
