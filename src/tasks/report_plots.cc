#include "tasks/report_plots.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace nibble {
namespace {

// User units of the drawings. A phone shows about 0.7 of its pixels for each, so that text of 14 stays readable.
constexpr double kWidth = 480, kHeight = 300;
constexpr double kLeft = 70, kRight = 14, kTop = 14, kBottom = 46;
constexpr int kTicks = 5;           // about so many on an axis
constexpr double kCharacter = 7.6;  // width of a letter of 14, about
constexpr double kLine = 15;        // height of a line of text
constexpr double kTickGap = 10;     // between the labels of bars
constexpr size_t kFewBars = 16;     // may have all their labels, slanted
constexpr double kSlantRoom = 26;   // more below the bars for that
constexpr size_t kLineClasses = 4;  // of the style sheet; more lines begin again
constexpr double kSmallDot = 5, kLargeDot = 13;

/// A range of values on one side of the drawing.
struct Axis {
  double low, high;   // values at its ends
  double begin, end;  // where these lie
  double step;        // between ticks

  double at(double value) const { return begin + (value - low) / (high - low) * (end - begin); }
};

/// 1, 2 or 5 times a power of ten, so that about kTicks of them make `span`.
double nice_step(double span) {
  const double raw = span / kTicks, power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) return factor * power;
  }
  return 10 * power;
}

enum class Ends { nice, exact };

Axis make_axis(double low, double high, double begin, double end, Ends ends = Ends::nice) {
  // One value, or none, or such that a step would be lost in rounding.
  if (!(high - low > 1e-9 * std::max(std::fabs(low), std::fabs(high)))) {
    const double margin = std::max(std::fabs(low) * 0.1, 1e-9);
    low -= margin;
    high += margin;
  }
  const double step = nice_step(high - low);
  if (ends == Ends::nice) {
    low = std::floor(low / step + 1e-9) * step;
    high = std::ceil(high / step - 1e-9) * step;
  }
  return {.low = low, .high = high, .begin = begin, .end = end, .step = step};
}

/// Enough digits to tell ticks a step apart.
std::string tick_text(double value, double step) {
  if (std::fabs(value) < step / 2) return "0";
  const double power = std::floor(std::log10(step) + 1e-9);
  if (power < -5 || power > 6) return fmt::format("{:.3g}", value);
  return fmt::format("{:.{}f}", value, std::max(0, static_cast<int>(-power)));
}

std::string text_at(double x, double y, const char* kind, const std::string& text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" class=\"{}\">{}</text>", x, y, kind, escaped(text));
}

std::string open_svg(const std::string& title) {
  return fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">", kWidth, kHeight, escaped(title));
}

Axis upright(double low, double high, double room_below = 0) {
  return make_axis(low, high, kHeight - kBottom - room_below, kTop);
}
Axis lying(double low, double high, Ends ends = Ends::nice) {
  return make_axis(low, high, kLeft, kWidth - kRight, ends);
}

/// Lines across with their values at the left, and the axis' name above them.
std::string draw_upright(const Axis& y, const std::string& label) {
  std::string out;
  for (double value = y.low; value <= y.high + y.step / 2; value += y.step) {
    out += fmt::format("<line x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\" class=\"grid\"/>", kLeft, kWidth - kRight,
                       y.at(value), y.at(value));
    out += text_at(kLeft - 6, y.at(value) + 5, "end", tick_text(value, y.step));
  }
  const double middle = (y.begin + y.end) / 2;
  return out + fmt::format("<text transform=\"translate(13 {:.1f}) rotate(-90)\" class=\"middle\">{}</text>", middle,
                           escaped(label));
}

std::string x_name(const std::string& label) {
  return text_at((kLeft + kWidth - kRight) / 2, kHeight - 6, "middle", label);
}

std::string draw_lying(const Axis& x, const std::string& label) {
  std::string out;
  for (double value = std::ceil(x.low / x.step - 1e-9) * x.step; value <= x.high + x.step * 1e-6; value += x.step) {
    out += text_at(x.at(value), kHeight - kBottom + 18, "middle", tick_text(value, x.step));
  }
  return out + x_name(label);
}

struct Range {
  double low = INFINITY, high = -INFINITY;

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

bool is_drawn(double x, double y) { return std::isfinite(x) && std::isfinite(y); }

std::string nothing_to_show(const std::string& title) {
  return open_svg(title) + text_at(kWidth / 2, kHeight / 2, "middle", "no finite values") + "</svg>";
}

std::string class_of(const LinePlot::Line& line, size_t index) {
  return line.look == LinePlot::Look::background ? "background" : fmt::format("line c{}", index % kLineClasses);
}

std::string polyline(const LinePlot::Line& line, size_t index, const Axis& x, const Axis& y) {
  std::string points, dots;
  for (const auto& [px, py] : line.points) {
    if (!is_drawn(px, py)) continue;
    points += fmt::format("{:.1f},{:.1f} ", x.at(px), y.at(py));
    if (line.look != LinePlot::Look::marked) continue;
    dots += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" class=\"mark c{}\"><title>{}: {:.4g}</title></circle>", x.at(px),
        y.at(py), index % kLineClasses, escaped(line.name), py);
  }
  return fmt::format("<polyline points=\"{}\" class=\"{}\"><title>{}</title></polyline>{}", points,
                     class_of(line, index), escaped(line.name), dots);
}

std::string legend(const LinePlot& plot) {
  std::string out;
  double x = kLeft + 8;
  for (size_t i = 0; plot.lines.size() > 1 && i < plot.lines.size(); ++i) {
    const std::string& name = plot.lines[i].name;
    out += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"24\" y2=\"24\" class=\"{}\"/>", x, x + 18,
                       class_of(plot.lines[i], i));
    out += text_at(x + 23, 29, "start", name);
    x += 40 + 7.5 * static_cast<double>(name.size());
  }
  return out;
}

double bar_width(const BarChart& chart) { return (kWidth - kLeft - kRight) / static_cast<double>(chart.bars.size()); }

double name_length(const BarChart::Bar& bar) { return kCharacter * static_cast<double>(bar.tick.size()); }

/// Few bars that all have names, and one too long for its bar.
bool has_slanted_names(const BarChart& chart) {
  const auto& bars = chart.bars;
  return bars.size() <= kFewBars &&
         std::all_of(bars.begin(), bars.end(), [](const auto& bar) { return !bar.tick.empty(); }) &&
         std::any_of(bars.begin(), bars.end(), [&](const auto& bar) { return name_length(bar) > bar_width(chart); });
}

/// The names below bars: all of them slanted, or as many as have room.
std::string bar_names(const BarChart& chart, double below) {
  const double width = bar_width(chart);
  const bool slanted = has_slanted_names(chart);
  std::string out;
  double free_from = -INFINITY;
  for (size_t i = 0; i < chart.bars.size(); ++i) {
    const BarChart::Bar& bar = chart.bars[i];
    const double middle = kLeft + width * (static_cast<double>(i) + 0.5);
    if (slanted) {
      out += fmt::format("<text transform=\"translate({:.1f} {:.1f}) rotate(-25)\" class=\"end\">{}</text>", middle + 6,
                         below + kLine, escaped(bar.tick));
      continue;
    }
    if (bar.tick.empty() || middle - name_length(bar) / 2 < free_from) continue;
    out += text_at(middle, below + 18, "middle", bar.tick);
    free_from = middle + name_length(bar) / 2 + kTickGap;
  }
  return out;
}

/// A rectangle of the drawing.
struct Box {
  double left, top, right, bottom;
};

bool overlap(const Box& a, const Box& b) {
  return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
}

struct PlacedDot {
  double x, y, radius;
  std::string name;
};

/// The name of a dot at its right, left, above or below, or further up and down, where it covers least of what is
/// there; then it is there too.
std::string dot_name(const PlacedDot& dot, std::vector<Box>& taken) {
  struct Place {
    double x, y;  // of the end of the text, and its middle
    const char* anchor;
    double shift;  // of the left edge, in lengths of the text
  };
  std::vector<Place> places;
  const double right = dot.x + dot.radius + 4, left = dot.x - dot.radius - 4;
  for (const double step : {0.0, -1.0, 1.0, -2.0, 2.0, -3.0, 3.0}) {
    places.push_back({right, dot.y + step * kLine, "start", 0});
    places.push_back({left, dot.y + step * kLine, "end", -1});
  }
  places.push_back({dot.x, dot.y - dot.radius - kLine / 2 - 1, "middle", -0.5});
  places.push_back({dot.x, dot.y + dot.radius + kLine / 2 + 1, "middle", -0.5});
  const double length = kCharacter * static_cast<double>(dot.name.size());
  const auto box_of = [&](const Place& p) {
    const double begin = p.x + p.shift * length;
    return Box{begin, p.y - kLine / 2, begin + length, p.y + kLine / 2};
  };
  const auto cost = [&](const Place& p) {
    const Box box = box_of(p);
    const bool outside =
        box.left < kLeft + 4 || box.right > kWidth || box.top < 0 || box.bottom > kHeight - kBottom + 4;
    return std::count_if(taken.begin(), taken.end(), [&](const Box& other) { return overlap(box, other); }) +
           (outside ? 100 : 0);
  };
  const Place best = *std::min_element(places.begin(), places.end(),
                                       [&](const Place& a, const Place& b) { return cost(a) < cost(b); });
  taken.push_back(box_of(best));
  return text_at(best.x, best.y + 5, best.anchor, dot.name);
}

}  // namespace

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string svg(const LinePlot& plot) {
  Range xs, ys;
  for (const LinePlot::Line& line : plot.lines) {
    for (const auto& [x, y] : line.points) {
      if (!is_drawn(x, y)) continue;
      xs.add(x);
      ys.add(y);
    }
  }
  if (ys.empty()) return nothing_to_show(plot.title);
  // Room for the legend above the lines.
  const double above = plot.lines.size() > 1 ? 0.15 * (ys.high - ys.low) : 0;
  const Axis x = lying(xs.low, xs.high, Ends::exact);
  const Axis y = upright(plot.floor == LinePlot::Floor::zero ? std::min(0.0, ys.low) : ys.low, ys.high + above);
  std::string out = open_svg(plot.title) + draw_upright(y, plot.y_label) + draw_lying(x, plot.x_label);
  for (const bool background : {true, false}) {
    for (size_t i = 0; i < plot.lines.size(); ++i) {
      if ((plot.lines[i].look == LinePlot::Look::background) == background) out += polyline(plot.lines[i], i, x, y);
    }
  }
  return out + legend(plot) + "</svg>";
}

std::string svg(const BarChart& chart) {
  Range values;
  values.add(0);
  for (const BarChart::Bar& bar : chart.bars) {
    if (std::isfinite(bar.value)) values.add(bar.value);
  }
  if (chart.bars.empty()) return nothing_to_show(chart.title);
  const Axis y = upright(values.low, values.high, has_slanted_names(chart) ? kSlantRoom : 0);
  std::string out =
      open_svg(chart.title) + draw_upright(y, chart.y_label) + x_name(chart.x_label) + bar_names(chart, y.begin);
  const double width = bar_width(chart);
  for (size_t i = 0; i < chart.bars.size(); ++i) {
    const BarChart::Bar& bar = chart.bars[i];
    if (!std::isfinite(bar.value)) continue;
    const double x = kLeft + width * static_cast<double>(i);
    const double top = std::min(y.at(bar.value), y.at(0)), height = std::fabs(y.at(bar.value) - y.at(0));
    out += fmt::format(
        "<rect x=\"{:.2f}\" y=\"{:.1f}\" width=\"{:.2f}\" height=\"{:.1f}\" class=\"bar\"><title>{}: {:.4g}"
        "</title></rect>",
        x + 0.1 * width, top, 0.8 * width, height, escaped(bar.name), bar.value);
  }
  return out + "</svg>";
}

std::string svg(const ScatterPlot& plot) {
  Range xs, ys, sizes;
  for (const ScatterPlot::Dot& dot : plot.dots) {
    if (!is_drawn(dot.x, dot.y)) continue;
    xs.add(dot.x);
    ys.add(dot.y);
    sizes.add(dot.size);
  }
  if (xs.empty()) return nothing_to_show(plot.title);
  // So that no dot lies on the frame; but what is never negative begins at zero.
  const double margin = 0.08 * (ys.high - ys.low), low = ys.low - margin;
  const Axis x = lying(std::min(0.0, xs.low), std::max(0.0, xs.high * 1.15));
  const Axis y = upright(ys.low >= 0 ? std::max(0.0, low) : low, ys.high + margin, kLargeDot);
  std::string out = open_svg(plot.title) + draw_upright(y, plot.y_label) + draw_lying(x, plot.x_label);
  std::vector<Box> taken;
  std::vector<PlacedDot> placed;
  for (const ScatterPlot::Dot& dot : plot.dots) {
    if (!is_drawn(dot.x, dot.y)) continue;
    const double radius = dot.size > 0 ? std::max(kSmallDot, kLargeDot * std::sqrt(dot.size / sizes.high)) : kSmallDot;
    placed.push_back({.x = x.at(dot.x), .y = y.at(dot.y), .radius = radius, .name = dot.name});
    const PlacedDot& p = placed.back();
    taken.push_back({p.x - radius, p.y - radius, p.x + radius, p.y + radius});
    out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" class=\"dot\"><title>{}</title></circle>", p.x,
                       p.y, radius, escaped(dot.name));
  }
  for (const PlacedDot& dot : placed) out += dot_name(dot, taken);
  return out + "</svg>";
}

}  // namespace nibble
