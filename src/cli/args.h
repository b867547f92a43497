#pragma once
// The arguments of one command: declared, parsed, explained. args.cc holds the only use of CLI11.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace nibble::cli {

class Args {
 public:
  /// @param examples  lines shown at the end of --help
  Args(const std::string& command, const std::string& summary, const std::string& examples);
  ~Args();

  enum class Need { optional, required };

  void positional(const std::string& name, std::string& value, const std::string& help, Need need = Need::required);
  void positional(const std::string& name, std::optional<std::string>& value, const std::string& help);
  /// names: "-o,--out". The help shows `type`, for example FILE.
  void option(const std::string& names, std::string& value, const std::string& type, const std::string& help,
              Need need = Need::optional);
  void option(const std::string& names, std::optional<std::string>& value, const std::string& type,
              const std::string& help);
  void option(const std::string& names, int64_t& value, const std::string& help);
  void option(const std::string& names, uint64_t& value, const std::string& help);
  void option(const std::string& names, std::optional<int64_t>& value, const std::string& help);
  void option(const std::string& names, float& value, const std::string& help);
  void option(const std::string& names, std::optional<double>& value, const std::string& help);
  /// With a value or without one: `alone` when it stands alone.
  void option_or_flag(const std::string& names, std::string& value, const std::string& alone, const std::string& type,
                      const std::string& help);
  /// Takes one or more values, and may be given several times.
  void list(const std::string& names, std::vector<std::string>& values, const std::string& type,
            const std::string& help);
  /// Takes one value each time it is given.
  void repeated(const std::string& names, std::vector<std::string>& values, const std::string& type,
                const std::string& help, Need need = Need::optional);
  void flag(const std::string& names, bool& value, const std::string& help);
  void flag(const std::string& names, std::optional<bool>& value, const std::string& help);

  /// @returns false when --help was asked for and printed.
  /// @throws Error{invalid_argument} naming the argument, and the nearest one that exists.
  bool parse(const std::vector<std::string>& arguments);
  /// After parse(): whether the option was given. name: "--threads"
  bool is_given(const std::string& name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Options that every command has.
struct Common {
  bool json = false, quiet = false;
  int64_t threads = 0;

  void declare(Args& args);
  /// Sets the number of threads. Call after parse().
  void apply() const;
};

/// "1,2,3" as ids. @throws Error{invalid_argument}
std::vector<int32_t> parse_ids(const std::string& text, const std::string& option);

/// One number of a list, by the rules of options that take one. @throws Error{invalid_argument}
int64_t parse_integer(const std::string& text, const std::string& option);
double parse_finite(const std::string& text, const std::string& option);

/// "8GB", "500MiB", "1234": decimal and binary units. @throws Error{invalid_argument}
uint64_t parse_size(const std::string& text, const std::string& option);

}  // namespace nibble::cli
