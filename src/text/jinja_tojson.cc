// json.dumps as the tojson filter of transformers calls it.
#include <algorithm>
#include <cmath>

#include "text/jinja_runtime.h"
#include "text/jinja_strings.h"
#include "text/jinja_value.h"
#include "text/unicode.h"

namespace nibble::jinja {
namespace {

void append_unit(std::string& out, uint32_t unit) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += kHex[(unit >> shift) & 15];
}

// \uXXXX, as a surrogate pair beyond 0xffff.
void append_escaped(std::string& out, char32_t c) {
  if (c >= 0x10000) append_unit(out, 0xd800 + ((c - 0x10000) >> 10));
  append_unit(out, c >= 0x10000 ? 0xdc00 + ((c - 0x10000) & 0x3ff) : c);
}

std::string json_string(std::string_view text, bool ensure_ascii) {
  static constexpr std::string_view kShort = "\"\\\n\r\t\b\f", kLetters = "\"\\nrtbf";
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const size_t start = i;
    const char32_t c = next_char(text, i);
    const size_t place = c < 0x80 ? kShort.find(static_cast<char>(c)) : std::string_view::npos;
    if (place != std::string_view::npos) {
      out.append("\\").append(1, kLetters[place]);
    } else if (c < 0x20 || (ensure_ascii && c > 0x7e)) {
      append_escaped(out, c);
    } else {
      out.append(text.substr(start, i - start));
    }
  }
  return out + '"';
}

class Writer {
 public:
  Writer(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {}

  void write(const Value& value) {
    runtime_.spend(shallow_bytes(value) + 1);
    if (const Dict* dict = value.dict()) return write_dict(*dict);
    const Sequence* sequence = value.sequence();
    if (sequence != nullptr && sequence->kind <= SequenceKind::tuple) return write_list(*sequence);
    append(scalar(value));
  }

  std::string take() { return std::move(out_); }

 private:
  void append(std::string_view text) {
    runtime_.spend(text.size());
    out_ += text;
  }

  void new_line() {
    if (!style_.indent) return;
    append("\n");
    for (int i = 0; i < level_; ++i) append(*style_.indent);
  }

  std::string scalar(const Value& value) const {
    if (value.is_none()) return "null";
    if (value.is_bool()) return is_true(value) ? "true" : "false";
    if (const std::string* text = value.string()) return json_string(*text, style_.ensure_ascii);
    if (const auto whole = value.integer()) return std::to_string(*whole);
    if (!value.is_float()) {
      runtime_.fail("object of type " + std::string(type_name(value)) + " is not JSON serializable");
    }
    const double number = *value.number();
    if (std::isnan(number)) return "NaN";
    if (std::isinf(number)) return number < 0 ? "-Infinity" : "Infinity";
    return float_text(number);
  }

  void write_list(const Sequence& list) {
    if (list.items.empty()) return append("[]");
    append("[");
    ++level_;
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) append(style_.item_separator);
      new_line();
      write(list.items[i]);
    }
    --level_;
    new_line();
    append("]");
  }

  void write_dict(const Dict& dict) {
    if (dict.items.empty()) return append("{}");
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& pair : dict.items) order.push_back(&pair);
    const auto by_key = [this](const auto* a, const auto* b) { return less(runtime_, a->first, b->first); };
    if (style_.sort_keys) std::stable_sort(order.begin(), order.end(), by_key);
    append("{");
    ++level_;
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) append(style_.item_separator);
      new_line();
      const Value& key = order[i]->first;
      append(key.string() != nullptr ? scalar(key) : '"' + scalar(key) + '"');
      append(style_.key_separator);
      write(order[i]->second);
    }
    --level_;
    new_line();
    append("}");
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string out_;
  int level_ = 0;
};

}  // namespace

std::string to_json(Runtime& runtime, const Value& value, const JsonStyle& style) {
  Writer writer(runtime, style);
  writer.write(value);
  return writer.take();
}

}  // namespace nibble::jinja
