#include "io/quantization_config.h"

#include "core/error.h"

namespace nibble {
namespace {

/// One member of the object, with the name of its place for messages.
class Member {
 public:
  Member(const Json& object, std::string_view key, const std::string& where)
      : value_(object.find_value(key)), where_(where + ": " + std::string(key)) {}

  bool as_bool(bool absent) const { return value_ ? value_->as_bool(where_) : absent; }
  double as_double(double absent) const { return value_ ? value_->as_double(where_) : absent; }
  std::string as_string(std::string absent) const { return value_ ? value_->as_string(where_) : std::move(absent); }

  DType as_dtype(DType absent) const {
    if (value_ == nullptr) return absent;
    const std::string& name = value_->as_string(where_);
    for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
      if (torch_dtype_name(dtype) == name) return dtype;
    }
    fail(ErrorCode::format, where_ + ": '" + printable(name, 100) + "', expected float32, float16 or bfloat16");
  }

  std::vector<std::string> as_strings() const {
    std::vector<std::string> strings;
    if (value_ == nullptr) return strings;
    for (const Json& item : value_->as_array(where_)) strings.push_back(item.as_string(where_));
    return strings;
  }

 private:
  const Json* value_;
  std::string where_;
};

QuantizationConfig parse_bitsandbytes(const Json& object, const std::string& where) {
  QuantizationConfig result;
  result.quant_method = "bitsandbytes";
  result.load_in_4bit = Member(object, "load_in_4bit", where).as_bool(false);
  result.load_in_8bit = Member(object, "load_in_8bit", where).as_bool(false);
  result.quant_type = Member(object, "bnb_4bit_quant_type", where).as_string("fp4");  // transformers' default
  if (result.load_in_8bit && !result.load_in_4bit) result.quant_type = "int8";
  result.double_quant = Member(object, "bnb_4bit_use_double_quant", where).as_bool(false);
  result.compute_dtype = Member(object, "bnb_4bit_compute_dtype", where).as_dtype(DType::f32);
  result.threshold = static_cast<float>(Member(object, "llm_int8_threshold", where).as_double(6.0));
  result.skip_modules = Member(object, "llm_int8_skip_modules", where).as_strings();
  return result;
}

QuantizationConfig parse_nibble(const Json& object, const std::string& where) {
  QuantizationConfig result;
  result.quant_method = "nibble";
  result.quant_type = Member(object, "quant_type", where).as_string("");
  result.double_quant = Member(object, "double_quant", where).as_bool(false);
  result.compute_dtype = Member(object, "compute_dtype", where).as_dtype(DType::f32);
  result.skip_modules = Member(object, "skip_modules", where).as_strings();
  return result;
}

/// null when empty, as transformers writes "use the defaults".
Json names_or_null(const std::vector<std::string>& names) {
  if (names.empty()) return Json();
  Json::Array items;
  for (const std::string& name : names) items.emplace_back(name);
  return Json(std::move(items));
}

Json bitsandbytes_config(bool four_bit, const std::string& quant_type, const EncodeOptions& options,
                         DType compute_dtype, const std::vector<std::string>& skip_modules, float threshold) {
  return Json::object({
      {"_load_in_4bit", four_bit},
      {"_load_in_8bit", !four_bit},
      {"bnb_4bit_compute_dtype", Json(torch_dtype_name(compute_dtype))},
      {"bnb_4bit_quant_storage", "uint8"},
      {"bnb_4bit_quant_type", quant_type},
      {"bnb_4bit_use_double_quant", options.double_quant},
      {"llm_int8_enable_fp32_cpu_offload", false},
      {"llm_int8_has_fp16_weight", false},
      {"llm_int8_skip_modules", names_or_null(skip_modules)},
      {"llm_int8_threshold", threshold},
      {"load_in_4bit", four_bit},
      {"load_in_8bit", !four_bit},
      {"quant_method", "bitsandbytes"},
  });
}

}  // namespace

QuantizationConfig parse_quantization_config(const Json& config, const std::string& where) {
  const Json* object = config.find_value("quantization_config");
  if (object == nullptr) return {};
  const std::string place = where + ": quantization_config";
  object->as_object(place);
  const bool loads_bits =
      Member(*object, "load_in_4bit", place).as_bool(false) || Member(*object, "load_in_8bit", place).as_bool(false);
  const std::string method = Member(*object, "quant_method", place).as_string(loads_bits ? "bitsandbytes" : "");
  if (method == "bitsandbytes") return parse_bitsandbytes(*object, place);
  if (method == "nibble") return parse_nibble(*object, place);
  if (method.empty()) fail(ErrorCode::format, place + ": has no quant_method");
  fail(ErrorCode::unsupported,
       place + ": quant_method '" + printable(method, 100) + "' is not supported; bitsandbytes and nibble are");
}

Json quantization_config(const Format& format, const EncodeOptions& options, DType compute_dtype,
                         const std::vector<std::string>& skip_modules, float int8_threshold) {
  const std::string name(format.name);
  if (name == "nf4" || name == "fp4") {
    return bitsandbytes_config(true, name, options, compute_dtype, skip_modules, int8_threshold);
  }
  // transformers writes the 4-bit members of an 8-bit folder with their defaults.
  if (name == "int8") return bitsandbytes_config(false, "fp4", {}, DType::f32, skip_modules, int8_threshold);
  return Json::object({
      {"block", block_of(format, options)},
      {"compute_dtype", Json(torch_dtype_name(compute_dtype))},
      {"double_quant", options.double_quant},
      {"granularity", options.granularity == Granularity::channel ? "channel" : "tensor"},
      {"quant_method", "nibble"},
      {"quant_type", name},
      {"skip_modules", names_or_null(skip_modules)},
  });
}

}  // namespace nibble
