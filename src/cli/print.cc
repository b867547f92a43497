#include "cli/print.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <memory>

#include "nibble/system.h"

namespace nibble::cli {
namespace {

constexpr int kBarWidth = 30;

/// Columns a UTF-8 text takes, for the few characters that our tables hold.
size_t width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

bool is_number(const std::string& cell) {
  if (cell.empty() || cell == "-") return !cell.empty();
  const size_t sign = cell[0] == '+' || cell[0] == '-' ? 1 : 0;
  return std::isdigit(static_cast<unsigned char>(cell[sign])) != 0;
}

std::string bar_line(const Progress& p, double seconds) {
  const double share = p.total > 0 ? static_cast<double>(p.done) / static_cast<double>(p.total) : 0;
  const auto filled = static_cast<size_t>(share * kBarWidth);
  const double left = share > 0 ? seconds * (1 - share) / share : 0;
  const std::string rate = p.bytes > 0 ? human_bytes(static_cast<uint64_t>(p.bytes / std::max(seconds, 1e-3))) + "/s"
                                       : fmt::format("{:.0f}/s", static_cast<double>(p.done) / std::max(seconds, 1e-3));
  return fmt::format("\r[{}{}] {}/{} {}  {}  {}:{:02} left \x1b[K", std::string(filled, '='),
                     std::string(kBarWidth - filled, ' '), p.done, p.total, p.unit, rate, static_cast<int>(left) / 60,
                     static_cast<int>(left) % 60);
}

/// Draws at most ten times a second, and wipes the line at the end.
class Bar {
 public:
  void show(const Progress& p) {
    const auto now = std::chrono::steady_clock::now();
    if (p.done >= p.total) {
      std::fputs("\r\x1b[K", stderr);
      start_ = now;
      return;
    }
    if (now - drawn_ < std::chrono::milliseconds(100)) return;
    drawn_ = now;
    std::fputs(bar_line(p, std::chrono::duration<double>(now - start_).count()).c_str(), stderr);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), drawn_{};
};

}  // namespace

void print(std::string_view text) {
  if (!text.empty()) std::fwrite(text.data(), 1, text.size(), stdout);  // an empty view may hold no address
}

void print_line(std::string_view text) {
  print(text);
  std::fputc('\n', stdout);
}

void note(std::string_view text) {
  std::fflush(stdout);  // so that the two streams of a terminal stay in order
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

void print_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width(row[i]));
  }
  for (const auto& row : rows) {
    std::string line = " ";
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - width(row[i]), ' ');
      const bool right =
          is_number(row[i]) || (&row == &rows[0] && rows.size() > 1 && i < rows[1].size() && is_number(rows[1][i]));
      line += " " + (right ? space + row[i] : row[i] + space) + " ";
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    print_line(line);
  }
}

std::string human_bytes(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) value /= 1024, ++unit;
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string fixed(double value, int digits) { return fmt::format("{:.{}f}", value, digits); }

std::string grouped(int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

void JsonReport::print(const std::string& model, const Json& members) const { print_line(text(model, members)); }

std::string JsonReport::text(const std::string& model, const Json& members) const {
  return object(model, members).dump();
}

Json JsonReport::object(const std::string& model, const Json& members) const {
  Json out = Json::object();
  if (!model.empty()) out.set("model", model);
  for (const auto& [key, value] : members.as_object("report")) out.set(key, value);
  out.set("seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count());
  out.set("peak_rss_bytes", peak_rss_bytes());
  return out;
}

ProgressFn progress_bar(const Common& common) {
  if (common.quiet || !isatty(fileno(stderr))) return {};
  auto bar = std::make_shared<Bar>();
  return [bar](const Progress& p) { bar->show(p); };
}

}  // namespace nibble::cli
