#include <nlohmann/json.hpp>

#include "core/json.h"

namespace nibble {
namespace {

using Writer = nlohmann::ordered_json;

Writer convert(const Json& value) {
  const std::string here = "json";
  if (value.is_object()) {
    Writer::object_t members;
    // The map's own insertion looks for the key in all earlier ones; ours are known to be distinct.
    Writer::object_t::Container& list = members;
    for (const auto& [key, member] : value.as_object(here)) list.emplace_back(key, convert(member));
    return members;
  }
  if (value.is_array()) {
    Writer out = Writer::array();
    for (const Json& item : value.as_array(here)) out.push_back(convert(item));
    return out;
  }
  if (value.is_bool()) return value.as_bool(here);
  if (value.is_string()) return value.as_string(here);
  if (value.is_integer()) return value.as_int(here);
  if (value.is_number()) return value.as_double(here);
  return nullptr;
}

}  // namespace

std::string Json::dump(int indent) const {
  return convert(*this).dump(indent, ' ', false, Writer::error_handler_t::replace);
}

}  // namespace nibble
