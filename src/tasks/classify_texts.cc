// Files of texts, one per row, with labels or without: TSV, CSV, JSONL.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <span>

#include "core/error.h"
#include "core/json.h"
#include "core/limits.h"
#include "nibble/classify.h"
#include "tasks/data_file.h"
#include "text/text_file.h"

namespace nibble {
namespace {

constexpr const char* kTextNames[] = {"text", "sentence", "sentence1"};
constexpr const char* kPairNames[] = {"sentence2"};
constexpr const char* kLabelNames[] = {"label", "labels", "intent"};
constexpr const char* kIndexNames[] = {"id", "idx", "index", "guid", "Unnamed: 0", ""};  // "": as pandas writes it

struct Row {
  std::string place;  // FILE:LINE, where it begins
  std::vector<std::string> fields;
};

/// The first row names the columns.
struct Table {
  std::vector<Row> rows;
  std::vector<bool> holds_numbers = {};  // by column, where the file says so
};

constexpr std::string_view kAbsent = "\xff";  // of a row without such a member; no text, which is UTF-8

std::vector<std::string_view> split_lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

std::vector<Row> read_tsv(std::string_view text, const std::string& path) {
  std::vector<Row> rows;
  int64_t number = 0;
  for (std::string_view line : split_lines(text)) {
    ++number;
    if (line.empty()) continue;
    Row row = {at_line(path, number), {}};
    for (size_t begin = 0; begin <= line.size();) {
      const size_t end = std::min(line.find('\t', begin), line.size());
      row.fields.emplace_back(line.substr(begin, end - begin));
      begin = end + 1;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

/// RFC 4180: a field in quotes may hold commas, line ends and doubled quotes.
class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  std::vector<Row> rows() {
    std::vector<Row> rows;
    while (at_ < text_.size()) {
      Row row = {at_line(path_, line_), {}};
      do row.fields.push_back(field());
      while (take(','));
      take('\r');
      if (at_ < text_.size() && !take('\n')) {
        fail(ErrorCode::format, at_line(path_, line_) + ": text after a quoted field");
      }
      ++line_;
      if (row.fields.size() > 1 || !row.fields[0].empty()) rows.push_back(std::move(row));
    }
    return rows;
  }

 private:
  bool take(char c) {
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  std::string field() {
    if (take('"')) return quoted();
    const size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    std::string out(text_.substr(at_, end - at_));
    at_ = end;
    return out;
  }

  std::string quoted() {
    const int64_t began = line_;
    std::string out;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == '"' && !take('"')) return out;
      line_ += c == '\n';
      out += c;
    }
    fail(ErrorCode::format, at_line(path_, began) + ": a quoted field does not end");
  }

  std::string_view text_;
  const std::string& path_;
  size_t at_ = 0;
  int64_t line_ = 1;
};

std::string field_text(const Json* value) {
  if (value && value->is_number()) return value->dump();
  return value && value->is_string() ? value->as_string("") : std::string(kAbsent);
}

/// The members of the first object are the columns; the rows must have those that are used.
Table read_jsonl(std::string_view text, const std::string& path) {
  Table table;
  for_lines(text, path, [&](std::string_view line, const std::string& where) {
    const Json object = Json::parse(line, where);
    if (table.rows.empty()) {
      table.rows.push_back({where, {}});
      for (const auto& [key, value] : object.as_object(where)) {
        if (!value.is_string() && !value.is_number()) continue;
        table.rows[0].fields.push_back(key);
        table.holds_numbers.push_back(value.is_number());
      }
    }
    Row row = {where, {}};
    for (const std::string& key : table.rows[0].fields) row.fields.push_back(field_text(object.find(key)));
    table.rows.push_back(std::move(row));
  });
  return table;
}

Table read_table(const std::string& path) {
  const std::string text = read_utf8_file(path, limits::kMaxJsonBytes);
  const std::string extension = std::filesystem::path(path).extension().string();
  if (extension == ".csv") return {.rows = CsvReader(text, path).rows()};
  if (extension == ".jsonl") return read_jsonl(text, path);
  return {.rows = read_tsv(text, path)};
}

std::string list_of(std::span<const std::string> names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + printable(name, 60);
  return printable(list, 400);
}

/// The column asked for by name or number; without a wish the first of the usual names, or none.
std::optional<size_t> find_column(const std::vector<std::string>& head, const std::string& wanted,
                                  std::span<const char* const> usual, const std::string& path) {
  const auto named = [&](const std::string& name) -> std::optional<size_t> {
    const auto found = std::find(head.begin(), head.end(), name);
    return found == head.end() ? std::nullopt : std::optional(static_cast<size_t>(found - head.begin()));
  };
  if (wanted.empty()) {
    for (const char* name : usual) {
      if (const auto column = named(name)) return column;
    }
    return std::nullopt;
  }
  if (const auto column = named(wanted)) return column;
  size_t index = 0;
  const auto [end, error] = std::from_chars(wanted.data(), wanted.data() + wanted.size(), index);
  if (error == std::errc() && end == wanted.data() + wanted.size() && index < head.size()) return index;
  fail(ErrorCode::invalid_argument, path + ": has no column '" + wanted + "' (columns: " + list_of(head) + ")");
}

struct Columns {
  size_t text = 0;
  std::optional<size_t> pair, label;
};

/// The only column that is not known to hold something else.
size_t other_column(const Table& table, const Columns& known, const std::string& path) {
  const std::vector<std::string>& head = table.rows[0].fields;
  std::vector<size_t> others;
  for (size_t i = 0; i < head.size(); ++i) {
    const auto is_one_of = [&](std::span<const char* const> names) {
      return std::find(names.begin(), names.end(), head[i]) != names.end();
    };
    if (i == known.pair || i == known.label || is_one_of(kLabelNames) || is_one_of(kIndexNames)) continue;
    if (table.holds_numbers.empty() || !table.holds_numbers[i]) others.push_back(i);
  }
  if (others.size() == 1) return others[0];
  fail(ErrorCode::format, path + ": it cannot be told which column is the text; name it text, sentence or sentence1 " +
                              "(columns: " + list_of(head) + ")");
}

Columns find_columns(const Table& table, const LabelledColumns& wanted, const std::string& path) {
  const std::vector<std::string>& head = table.rows[0].fields;
  Columns columns = {.text = 0,
                     .pair = find_column(head, wanted.pair, kPairNames, path),
                     .label = find_column(head, wanted.label, kLabelNames, path)};
  const std::optional<size_t> text = find_column(head, wanted.text, kTextNames, path);
  const bool is_taken = wanted.text.empty() && (text == columns.pair || text == columns.label);
  columns.text = text && !is_taken ? *text : other_column(table, columns, path);
  return columns;
}

const std::string& field(const Row& row, size_t column, const std::vector<std::string>& head) {
  if (column < row.fields.size()) {
    if (row.fields[column] != kAbsent) return row.fields[column];
    fail(ErrorCode::format, row.place + ": has no \"" + printable(head[column], 100) + "\" that is a text or a number");
  }
  fail(ErrorCode::format, row.place + ": has " + std::to_string(row.fields.size()) + " fields, column " +
                              std::to_string(column) + " is missing");
}

}  // namespace

LabelledTexts read_labelled_texts(const std::string& path, const LabelledColumns& columns) {
  const Table table = read_table(path);
  const std::vector<Row>& rows = table.rows;
  if (rows.size() < 2) fail(ErrorCode::format, path + ": has no rows of texts below the column names");
  const std::vector<std::string>& head = rows[0].fields;
  if (head.empty()) fail(ErrorCode::format, path + ": has no columns");
  const auto [text, pair, label] = find_columns(table, columns, path);
  LabelledTexts data;
  for (auto row = rows.begin() + 1; row != rows.end(); ++row) {
    if (row->fields.size() > head.size()) {
      fail(ErrorCode::format, row->place + ": has " + std::to_string(row->fields.size()) + " fields, expected " +
                                  std::to_string(head.size()) + "; in CSV a text with commas needs quotes");
    }
    data.places.push_back(row->place);
    data.inputs.push_back({.text = field(*row, text, head)});
    if (pair) data.inputs.back().pair = field(*row, *pair, head);
    if (label) data.labels.push_back(field(*row, *label, head));
  }
  return data;
}

}  // namespace nibble
