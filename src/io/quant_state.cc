#include "io/quant_state.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "core/checked.h"
#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"

namespace nibble {
namespace {

constexpr int64_t kMinBlock = 32, kMaxBlock = 4096;
constexpr int64_t kNestedBlockSize = 256;
constexpr std::array<std::string_view, 4> kPlainKeys = {"quant_type", "blocksize", "dtype", "shape"};
constexpr std::array<std::string_view, 3> kNestedKeys = {"nested_blocksize", "nested_dtype", "nested_offset"};

template <class Keys>
bool contains(const Keys& keys, std::string_view key) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

/// bitsandbytes refuses both a missing and an extra key.
void check_keys(const Json& state, bool nested, const std::string& where) {
  for (const auto& [key, value] : state.as_object(where)) {
    if (!contains(kPlainKeys, key) && !contains(kNestedKeys, key)) {
      fail(ErrorCode::format, where + ": unknown key '" + printable(key, 100) + "'");
    }
  }
  const auto require = [&](std::string_view key) {
    if (state.find(key) == nullptr) fail(ErrorCode::format, where + ": has no '" + std::string(key) + "'");
  };
  for (const std::string_view key : kPlainKeys) require(key);
  if (!nested) return;
  for (const std::string_view key : kNestedKeys) require(key);
}

int64_t parse_block(const Json& value, const std::string& where) {
  const int64_t block = value.as_int(where);
  if (block < kMinBlock || block > kMaxBlock || (block & (block - 1)) != 0) {
    fail(ErrorCode::format, where + ": " + std::to_string(block) + ", expected a power of two from 32 to 4096");
  }
  return block;
}

DType parse_source_dtype(const Json& value, const std::string& where) {
  const std::string& name = value.as_string(where);
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    if (torch_dtype_name(dtype) == name) return dtype;
  }
  fail(ErrorCode::format, where + ": '" + printable(name, 100) + "', expected float32, float16 or bfloat16");
}

Shape parse_matrix_shape(const Json& value, const std::string& where) {
  Shape shape;
  for (const Json& dim : value.as_array(where)) {
    const int64_t size = dim.as_int(where);
    if (size < 1 || size > static_cast<int64_t>(limits::kMaxDim)) {
      fail(ErrorCode::format, where + ": dimension " + std::to_string(size) + ", expected 1 to 2^48");
    }
    shape.push_back(size);
    if (shape.size() > limits::kMaxRank) fail(ErrorCode::format, where + ": rank above 8");
  }
  if (shape.size() != 2)
    fail(ErrorCode::unsupported, where + ": " + shape_text(shape) + ", only matrices are supported");
  return shape;
}

double parse_nested_offset(const Json& state, const std::string& where) {
  const int64_t block = state.find("nested_blocksize")->as_int(where + ": nested_blocksize");
  if (block != kNestedBlockSize) {
    fail(ErrorCode::unsupported, where + ": nested_blocksize " + std::to_string(block) + " is not supported, 256 is");
  }
  const std::string& dtype = state.find("nested_dtype")->as_string(where + ": nested_dtype");
  if (dtype != "float32") {
    fail(ErrorCode::unsupported, where + ": nested_dtype '" + printable(dtype, 100) + "' is not supported, float32 is");
  }
  return state.find("nested_offset")->as_double(where + ": nested_offset");
}

}  // namespace

QuantState parse_quant_state(std::string_view text, const std::string& where) {
  const Json state = Json::parse(text, where, limits::kMaxHeaderDepth);
  state.as_object(where);
  const auto given = [&](std::string_view key) { return state.find(key) != nullptr; };
  const bool nested = std::any_of(kNestedKeys.begin(), kNestedKeys.end(), given);
  check_keys(state, nested, where);
  QuantState result;
  result.quant_type = state.find("quant_type")->as_string(where + ": quant_type");
  result.block = parse_block(*state.find("blocksize"), where + ": blocksize");
  result.dtype = parse_source_dtype(*state.find("dtype"), where + ": dtype");
  result.shape = parse_matrix_shape(*state.find("shape"), where + ": shape");
  if (nested) result.nested_offset = parse_nested_offset(state, where);
  return result;
}

std::string python_repr(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
  std::array<char, 40> text;
  const auto scientific = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::scientific);
  const std::string shortest(text.data(), scientific.ptr);
  const size_t e = shortest.find('e');
  const int exponent = std::stoi(shortest.substr(e + 1));
  if (exponent < -4 || exponent >= 16) return shortest;  // Python prints exponents with two digits too
  const auto fixed = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  std::string out(text.data(), fixed.ptr);
  return out.find('.') == std::string::npos ? out + ".0" : out;
}

std::string quant_state_text(const QuantState& state) {
  std::string text = "{\"quant_type\": \"" + state.quant_type + "\", \"blocksize\": " + std::to_string(state.block) +
                     ", \"dtype\": \"" + std::string(torch_dtype_name(state.dtype)) +
                     "\", \"shape\": " + shape_text(state.shape);
  if (state.nested_offset) {
    text += ", \"nested_blocksize\": " + std::to_string(kNestedBlockSize) +
            ", \"nested_dtype\": \"float32\", \"nested_offset\": " + python_repr(*state.nested_offset);
  }
  return text + "}";
}

}  // namespace nibble
