// Recipe files: QuantizeOptions as JSON.
#include "core/error.h"
#include "core/json.h"
#include "nibble/quantize.h"

namespace nibble {
namespace {

struct Key {
  std::string name;
  void (*read)(QuantizeOptions&, const Json& value, const std::string& where);
};

using O = QuantizeOptions;

const std::vector<Key>& keys() {
  static const std::vector<Key> table = {
      {"format", [](O& o, const Json& v, const std::string& where) { o.format = v.as_string(where); }},
      {"double_quant", [](O& o, const Json& v, const std::string& where) { o.double_quant = v.as_bool(where); }},
      {"block", [](O& o, const Json& v, const std::string& where) { o.block = v.as_int(where); }},
      {"granularity", [](O& o, const Json& v, const std::string& where) { o.granularity = v.as_string(where); }},
      {"compute_dtype",
       [](O& o, const Json& v, const std::string& where) { o.compute_dtype = parse_dtype(v.as_string(where)); }},
      {"int8_threshold", [](O& o, const Json& v,
                            const std::string& where) { o.int8_threshold = static_cast<float>(v.as_double(where)); }},
      {"skip",
       [](O& o, const Json& v, const std::string& where) {
         o.skip.clear();
         for (const Json& name : v.as_array(where)) o.skip.push_back(name.as_string(where));
       }},
      {"max_shard_size",
       [](O& o, const Json& v, const std::string& where) {
         const int64_t bytes = v.as_int(where);
         if (bytes < 1) fail(ErrorCode::format, where + ": expected a number of bytes above 0");
         o.max_shard_size = static_cast<uint64_t>(bytes);
       }},
  };
  return table;
}

}  // namespace

QuantizeOptions quantize_options_from_file(const std::string& path, const QuantizeOptions& base) {
  QuantizeOptions options = base;
  std::vector<std::string> known;
  for (const Key& key : keys()) known.push_back(key.name);
  const Json recipe = Json::parse_file(path);
  for (const auto& [name, value] : recipe.as_object(path)) {
    const Key* found = nullptr;
    for (const Key& key : keys()) found = key.name == name ? &key : found;
    if (found == nullptr) {
      const std::string nearest = nearest_name(name, known);
      fail(ErrorCode::format,
           path + ": unknown key '" + name + "'" + (nearest.empty() ? "" : ", the nearest is '" + nearest + "'"));
    }
    found->read(options, value, path + ": " + name);
  }
  return options;
}

}  // namespace nibble
