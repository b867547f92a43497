#pragma once
// Plots as inline SVG. Colours and fonts come from the page's style sheet, by class.
#include <string>
#include <string_view>

#include "nibble/report.h"

namespace nibble {

std::string svg(const LinePlot& plot);
std::string svg(const BarChart& chart);
std::string svg(const ScatterPlot& plot);

/// Text for HTML and SVG.
std::string escaped(std::string_view text);

}  // namespace nibble
