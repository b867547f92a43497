#pragma once
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace nibble {

/// A table. The first row is the head; columns of numbers are set to the right.
struct ReportTable {
  std::string title = {}, note = {};
  std::vector<std::vector<std::string>> rows = {};
};

/// Lines over a common x axis.
struct LinePlot {
  enum class Look {
    line,
    marked,      ///< with a dot at each point
    background,  ///< thin and grey, below the others
  };
  enum class Floor {
    zero,    ///< the y axis holds zero
    values,  ///< and goes no further than the values
  };
  struct Line {
    std::string name = {};
    std::vector<std::pair<double, double>> points = {};  ///< (x, y), x rising; points that are not finite are left out
    Look look = Look::line;
  };
  std::string title = {}, note = {}, x_label = {}, y_label = {};
  std::vector<Line> lines = {};
  Floor floor = Floor::zero;
};

/// Upright bars from zero.
struct BarChart {
  struct Bar {
    std::string name = {};  ///< shown when pointed at
    std::string tick = {};  ///< shown below, as far as there is room; "" = none
    double value = 0;       ///< not finite = no bar
  };
  std::string title = {}, note = {}, x_label = {}, y_label = {};
  std::vector<Bar> bars = {};
};

/// Dots with names; their area says a third thing.
struct ScatterPlot {
  struct Dot {
    std::string name = {};
    double x = 0, y = 0;
    double size = 0;  ///< 0 = unknown, a small dot
  };
  std::string title = {}, note = {}, x_label = {}, y_label = {};
  std::vector<Dot> dots = {};
};

using ReportPart = std::variant<ReportTable, LinePlot, BarChart, ScatterPlot>;

struct ReportPage {
  std::string title = {};
  std::vector<std::string> headlines = {};  ///< below the title: what to remember
  std::vector<ReportPart> parts = {};
  std::string json = {};  ///< put into the page, for programs: <script type="application/json" id="data">
};

/// One self-contained HTML page: no network, no script; for phones, dark mode and paper.
std::string report_html(const ReportPage& page);

/// The same to a file, complete or absent. An existing one is replaced.
void write_report(const std::string& path, const ReportPage& page);

}  // namespace nibble
