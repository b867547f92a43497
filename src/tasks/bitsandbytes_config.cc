#include "nibble/bitsandbytes_config.h"

#include <algorithm>
#include <array>

#include "core/error.h"
#include "core/json.h"

namespace nibble {
namespace {

// Written by transformers besides the fields themselves; they mirror other fields or name the method.
constexpr std::string_view kMirrors[] = {"_load_in_4bit", "_load_in_8bit", "quant_method"};

/// One row per field, so that reading and writing cannot disagree.
struct Field {
  std::string name;
  void (*read)(BitsAndBytesConfig&, const Json&, const std::string& where);
  Json (*write)(const BitsAndBytesConfig&);
};

template <bool BitsAndBytesConfig::*member>
Field flag(const char* name) {
  return {name, [](BitsAndBytesConfig& c, const Json& v, const std::string& where) { c.*member = v.as_bool(where); },
          [](const BitsAndBytesConfig& c) { return Json(c.*member); }};
}

template <std::string BitsAndBytesConfig::*member>
Field text(const char* name) {
  return {name, [](BitsAndBytesConfig& c, const Json& v, const std::string& where) { c.*member = v.as_string(where); },
          [](const BitsAndBytesConfig& c) { return Json(c.*member); }};
}

void read_skip(BitsAndBytesConfig& c, const Json& value, const std::string& where) {
  c.llm_int8_skip_modules.clear();
  if (value.is_null()) return;
  for (const Json& name : value.as_array(where)) c.llm_int8_skip_modules.push_back(name.as_string(where));
}

Json write_skip(const BitsAndBytesConfig& c) {
  if (c.llm_int8_skip_modules.empty()) return Json();
  Json list = Json::array();
  for (const std::string& name : c.llm_int8_skip_modules) list.push_back(name);
  return list;
}

void read_compute_dtype(BitsAndBytesConfig& c, const Json& value, const std::string& where) {
  c.bnb_4bit_compute_dtype = value.is_null() ? DType::f32 : parse_dtype(value.as_string(where));
}

const std::array<Field, 10>& fields() {
  using C = BitsAndBytesConfig;
  static const std::array<Field, 10> rows = {{
      {"bnb_4bit_compute_dtype", read_compute_dtype,
       [](const C& c) { return Json(torch_dtype_name(c.bnb_4bit_compute_dtype)); }},
      text<&C::bnb_4bit_quant_storage>("bnb_4bit_quant_storage"),
      text<&C::bnb_4bit_quant_type>("bnb_4bit_quant_type"),
      flag<&C::bnb_4bit_use_double_quant>("bnb_4bit_use_double_quant"),
      flag<&C::llm_int8_enable_fp32_cpu_offload>("llm_int8_enable_fp32_cpu_offload"),
      flag<&C::llm_int8_has_fp16_weight>("llm_int8_has_fp16_weight"),
      {"llm_int8_skip_modules", read_skip, write_skip},
      {"llm_int8_threshold",
       [](C& c, const Json& v, const std::string& where) {
         c.llm_int8_threshold = static_cast<float>(v.as_double(where));
       },
       [](const C& c) { return Json(c.llm_int8_threshold); }},
      flag<&C::load_in_4bit>("load_in_4bit"),
      flag<&C::load_in_8bit>("load_in_8bit"),
  }};
  return rows;
}

void require(bool ok, const std::string& message) {
  if (!ok) fail(ErrorCode::invalid_argument, "BitsAndBytesConfig: " + message);
}

}  // namespace

void BitsAndBytesConfig::validate() const {
  require(!(load_in_4bit && load_in_8bit), "load_in_4bit and load_in_8bit exclude each other");
  require(llm_int8_threshold >= 0, "llm_int8_threshold must not be negative");
  require(!llm_int8_has_fp16_weight, "llm_int8_has_fp16_weight is not supported: weights are kept in int8");
  require(bnb_4bit_quant_type == "nf4" || bnb_4bit_quant_type == "fp4" || bnb_4bit_quant_type == "int4",
          "bnb_4bit_quant_type: found '" + bnb_4bit_quant_type + "', expected nf4, fp4 or int4");
  require(bnb_4bit_quant_storage == "uint8",
          "bnb_4bit_quant_storage: found '" + bnb_4bit_quant_storage + "', nibble writes uint8 (it reads all)");
  require(!(load_in_8bit && bnb_4bit_use_double_quant),
          "bnb_4bit_use_double_quant has no meaning with load_in_8bit: only 4-bit scales are quantized again");
  require(bnb_4bit_compute_dtype == DType::f32 || bnb_4bit_compute_dtype == DType::f16 ||
              bnb_4bit_compute_dtype == DType::bf16,
          "bnb_4bit_compute_dtype: expected float32, float16 or bfloat16");
}

BitsAndBytesConfig BitsAndBytesConfig::from_json(std::string_view json) {
  const std::string where = "BitsAndBytesConfig";
  BitsAndBytesConfig config;
  const Json parsed = Json::parse(json, where);
  std::vector<std::string> known;
  for (const Field& field : fields()) known.push_back(field.name);
  for (const auto& [key, value] : parsed.as_object(where)) {
    if (std::find(std::begin(kMirrors), std::end(kMirrors), key) != std::end(kMirrors)) continue;
    const auto found =
        std::find_if(fields().begin(), fields().end(), [&name = key](const Field& f) { return f.name == name; });
    if (found == fields().end()) {
      const std::string nearest = nearest_name(key, known);
      require(false, "unknown key '" + key + "'" + (nearest.empty() ? "" : ", the nearest is '" + nearest + "'"));
    }
    found->read(config, value, where + ": " + key);
  }
  config.validate();
  return config;
}

std::string BitsAndBytesConfig::to_json() const {
  Json out = Json::object({{"_load_in_4bit", load_in_4bit}, {"_load_in_8bit", load_in_8bit}});
  for (const Field& field : fields()) out.set(field.name, field.write(*this));
  out.set("quant_method", "bitsandbytes");
  return out.dump(2);
}

}  // namespace nibble
