#pragma once
// What commands print: tables, sizes, the JSON object, progress.
#include <chrono>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/args.h"
#include "core/json.h"
#include "nibble/error.h"
#include "nibble/progress.h"

namespace nibble::cli {

void print(std::string_view text);  // to stdout
void print_line(std::string_view text = {});
void note(std::string_view text);  // a line to stderr

/// Columns aligned; the first row is the head. Cells that begin with a digit, or a sign and a digit, are set to the
/// right.
void print_table(const std::vector<std::vector<std::string>>& rows);

std::string human_bytes(uint64_t bytes);  // "52.7 MiB"
std::string fixed(double value, int digits);
std::string grouped(int64_t value);  // "134,515,008"

/// Measures a command and prints its JSON: model, the members, seconds, peak_rss_bytes.
class JsonReport {
 public:
  JsonReport() : start_(std::chrono::steady_clock::now()) {}
  void print(const std::string& model, const Json& members) const;
  /// What print() prints.
  std::string text(const std::string& model, const Json& members) const;
  Json object(const std::string& model, const Json& members) const;

 private:
  std::chrono::steady_clock::time_point start_;
};

/// An error beside which --json shows what the command has found out.
struct ReportedError : Error {
  ReportedError(const Error& error, Json object) : Error(error), report(std::move(object)) {}
  Json report;  // as JsonReport::object() gives it
};

/// A progress bar on stderr when that is a terminal and the command is not quiet; else a function that does nothing.
ProgressFn progress_bar(const Common& common);

}  // namespace nibble::cli
