#pragma once
// Tables of small templates with what they write, all rendered with the same variables.
#include <gtest/gtest.h>

#include <span>
#include <string>

#include "core/error.h"
#include "core/json.h"
#include "text/chat_template.h"

namespace nibble::test {

struct TemplateRow {
  const char* source;
  const char* expected;
};

inline const Json& row_variables() {
  static const Json variables = Json::parse(R"({
    "a": 1, "b": 2, "f": 2.5, "s": "Hello World", "e": "", "l": [3, 1, 2],
    "d": {"x": 1, "y": [1, 2], "items": "shadow", "n": null}, "n": null, "t": true,
    "u": "  pad\u00a0\u3000", "uni": "h\u00e9llo w\u00f6rld \u65e5\u672c",
    "ms": [{"role": "user", "content": "A", "n": 2}, {"role": "tool", "content": "b", "n": 1}, {"role": "User", "n": 3}],
    "q": "it's \"q\"", "nl": "a\nb\r\nc\n", "neg": -7, "html": "<a href='x'>&\"</a>", "big": 9007199254740993
  })",
                                            "variables");
  return variables;
}

inline std::string render_row(const std::string& source) {
  return ChatTemplate(source, "row").render(Json::array(), {.variables = row_variables()});
}

inline void expect_rows(std::span<const TemplateRow> rows) {
  for (const TemplateRow& row : rows) {
    try {
      EXPECT_EQ(render_row(row.source), row.expected) << row.source;
    } catch (const Error& error) {
      ADD_FAILURE() << row.source << "\n  " << error.what();
    }
  }
}

}  // namespace nibble::test
