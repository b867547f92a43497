// A report as one HTML page.
#include "nibble/report.h"

#include <fmt/format.h>

#include <cctype>
#include <span>

#include "core/output.h"
#include "tasks/report_plots.h"

namespace nibble {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5b6875; --paper: #ffffff; --card: #f5f7f9; --rule: #d9dfe5;
  --c0: #1f6fb2; --c1: #c2571a; --c2: #3d8540; --c3: #8450a0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9ee; --soft: #9fadba; --paper: #14181d; --card: #1d232a;
  --rule: #333d47; --c0: #6cb2f0; --c1: #f0965a; --c2: #7cc47f; --c3: #c293dc; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 68rem; background: var(--paper); color: var(--ink);
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.35rem; margin: 0.3rem 0 0.6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.02rem; margin: 0 0 0.5rem; }
p { margin: 0.35rem 0; }
.headline { border-left: 4px solid var(--c0); padding: 0.15rem 0 0.15rem 0.7rem; }
.note { color: var(--soft); font-size: 0.86rem; }
main { columns: 27rem 2; column-gap: 1rem; margin-top: 1rem; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 0.8rem;
  margin: 0 0 1rem; break-inside: avoid; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.28rem 0.45rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; }
td.number { white-space: nowrap; }
td:first-child { min-width: 6rem; }
tr:last-child td { border-bottom: 0; }
svg { display: block; overflow: visible; width: 100%; height: auto; font-size: 14px; }
svg text { fill: var(--soft); }
svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2.2; stroke-linejoin: round; }
svg .background { fill: none; stroke: var(--soft); stroke-width: 1.1; stroke-opacity: 0.55; }
svg .mark { fill: var(--paper); stroke-width: 2; }
svg .mark.c1, svg .mark.c3 { stroke-dasharray: none; }
svg .bar { fill: var(--c0); } svg .dot { fill: var(--c0); fill-opacity: 0.75; }
svg .c0 { stroke: var(--c0); } svg .c1 { stroke: var(--c1); stroke-dasharray: 7 4; }
svg .c2 { stroke: var(--c2); } svg .c3 { stroke: var(--c3); stroke-dasharray: 2 4; }
@media (max-width: 32rem) { body { padding: 0.6rem; } section { padding: 0.6rem; } table { font-size: 0.8rem; }
  td.number { white-space: normal; } th, td { padding: 0.26rem 0.22rem; } td:first-child { min-width: 5rem; } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #333; --paper: #fff; --card: #fff; --rule: #bbb;
  --c0: #1f6fb2; --c1: #c2571a; --c2: #3d8540; --c3: #8450a0; }
  body { max-width: none; padding: 0; font-size: 12px; } main { columns: auto 1; }
  section { max-width: 13cm; } .scroll { overflow: visible; } }
)";

bool is_number(const std::string& cell) {
  if (cell.empty()) return false;
  const char first = cell[0] == '+' || cell[0] == '-' ? (cell.size() > 1 ? cell[1] : ' ') : cell[0];
  return std::isdigit(static_cast<unsigned char>(first)) != 0;
}

/// A column is set to the right when its cells below the head are numbers.
bool is_number_column(const ReportTable& table, size_t column) {
  bool any = false;
  for (size_t r = 1; r < table.rows.size(); ++r) {
    if (column >= table.rows[r].size() || table.rows[r][column].empty()) continue;
    if (!is_number(table.rows[r][column])) return false;
    any = true;
  }
  return any;
}

/// Long names may be broken at their dots.
std::string cell_text(const std::string& cell) {
  const std::string text = escaped(cell);
  if (text.find(' ') != std::string::npos || is_number(cell)) return text;
  std::string out;
  for (const char c : text) {
    out += c;
    if (c == '.') out += "<wbr>";
  }
  return out;
}

std::string body_of(const ReportTable& table) {
  std::string out = "<div class=\"scroll\"><table>";
  for (size_t r = 0; r < table.rows.size(); ++r) {
    const char* tag = r == 0 ? "th" : "td";
    out += "<tr>";
    for (size_t c = 0; c < table.rows[r].size(); ++c) {
      out += fmt::format("<{}{}>{}</{}>", tag, is_number_column(table, c) ? " class=\"number\"" : "",
                         cell_text(table.rows[r][c]), tag);
    }
    out += "</tr>";
  }
  return out + "</table></div>";
}

template <class Plot>
std::string body_of(const Plot& plot) {
  return svg(plot);
}

std::string section_of(const ReportPart& part) {
  return std::visit(
      [](const auto& p) {
        const std::string note = p.note.empty() ? "" : "<p class=\"note\">" + escaped(p.note) + "</p>";
        return "<section><h2>" + escaped(p.title) + "</h2>" + body_of(p) + note + "</section>\n";
      },
      part);
}

/// In JSON '<' stands in strings only; escaped, none of them can end the script element.
std::string for_script(const std::string& json) {
  std::string out;
  for (const char c : json) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string report_html(const ReportPage& page) {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      escaped(page.title) + "</title>\n<style>" + kStyle + "</style>\n</head>\n<body>\n<h1>" + escaped(page.title) +
      "</h1>\n";
  for (const std::string& line : page.headlines) out += "<p class=\"headline\">" + escaped(line) + "</p>\n";
  out += "<main>\n";
  for (const ReportPart& part : page.parts) out += section_of(part);
  out += "</main>\n";
  if (!page.json.empty()) {
    out += "<script type=\"application/json\" id=\"data\">" + for_script(page.json) + "</script>\n";
  }
  return out + "</body>\n</html>\n";
}

void write_report(const std::string& path, const ReportPage& page) {
  const std::string html = report_html(page);
  write_file_atomically(path, std::as_bytes(std::span(html)));
}

}  // namespace nibble
