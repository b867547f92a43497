#include "cli/args.h"

#include <CLI/CLI.hpp>

#include <charconv>
#include <cmath>
#include <cstdio>

#include "core/error.h"
#include "nibble/system.h"

namespace nibble::cli {

struct Args::Impl {
  CLI::App app;
  std::vector<std::string> names;  // of all options, for "did you mean"
};

namespace {

void remember(std::vector<std::string>& known, const std::string& names) {
  for (size_t begin = 0; begin < names.size();) {
    const size_t end = std::min(names.find(',', begin), names.size());
    known.push_back(names.substr(begin, end - begin));
    begin = end + 1;
  }
}

template <class T>
CLI::Option* add(CLI::App& app, std::vector<std::string>& known, const std::string& names, T& value,
                 const std::string& help) {
  remember(known, names);
  return app.add_option(names, value, help);
}

/// CLI11 would take 99999999999999999999 for the largest integer, and 010 for 8.
template <class T>
T parse_number(const std::string& text, const std::string& option) {
  const char* expected = std::is_floating_point_v<T> ? "a finite number"
                         : std::is_unsigned_v<T>     ? "an integer >= 0"
                                                     : "an integer";
  const char *begin = text.data(), *end = begin + text.size();
  while (begin < end && *begin == ' ') ++begin;
  while (begin < end && end[-1] == ' ') --end;
  if (end - begin > 1 && *begin == '+' && begin[1] != '-') ++begin;
  T value{};
  const auto [next, error] = std::from_chars(begin, end, value);
  if (error == std::errc::invalid_argument || next != end || !std::isfinite(static_cast<double>(value))) {
    throw CLI::ValidationError(option, "found '" + text + "', expected " + expected);
  }
  if constexpr (std::is_floating_point_v<T>) {  // from_chars says the same of what is too small
    if (error != std::errc() && std::fabs(std::strtod(begin, nullptr)) < 1) return 0;
  }
  if (error != std::errc()) throw CLI::ValidationError(option, text + " is out of range");
  return value;
}

/// Where CLI11 does not ask.
template <class T>
T parse_item(const std::string& text, const std::string& option) {
  try {
    return parse_number<T>(text, option);
  } catch (const CLI::ParseError& error) {
    fail(ErrorCode::invalid_argument, error.what());
  }
}

/// @tparam Value  T, or std::optional<T>
template <class T, class Value>
CLI::Option* add_number(CLI::App& app, std::vector<std::string>& known, const std::string& names, Value& value,
                        const std::string& help) {
  remember(known, names);
  const std::string longest = names.substr(names.rfind(',') + 1);
  const CLI::callback_t set = [&value, longest](const CLI::results_t& given) {
    value = parse_number<T>(given.back(), longest);
    return true;
  };
  CLI::Option* option = app.add_option(names, set, help)->type_name(std::is_integral_v<T> ? "N" : "X");
  if constexpr (std::is_same_v<T, Value>) option->default_str(CLI::detail::to_string(value));
  return option;
}

/// @param extras  what no option or positional took, in the order given, with the "--" after which nothing is an option
void refuse_unknown(std::vector<std::string> extras, const std::string& command,
                    const std::vector<std::string>& known) {
  const bool is_text = !extras.empty() && extras[0] == "--";
  if (is_text) extras.erase(extras.begin());
  if (extras.empty()) return;
  const std::string name = is_text ? extras[0] : extras[0].substr(0, extras[0].find('='));
  const std::string nearest = name.starts_with("-") && !is_text ? nearest_name(name, known) : "";
  fail(ErrorCode::invalid_argument, "unexpected argument '" + name + "'" +
                                        (nearest.empty() ? "" : ", did you mean '" + nearest + "'?") +
                                        " (see 'nibble " + command + " --help')");
}

/// One id or several with spaces between them. @returns false when it is anything else, or nothing
bool append_ids(std::string_view text, std::vector<int32_t>& ids) {
  const size_t before = ids.size();
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    while (at < end && *at == ' ') ++at;
    if (at == end) return ids.size() > before;
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0) return false;
    ids.push_back(id);
    at = next;
  }
}

}  // namespace

Args::Args(const std::string& command, const std::string& summary, const std::string& examples)
    : impl_(std::make_unique<Impl>()) {
  impl_->app.name("nibble " + command);
  impl_->app.description(summary);
  impl_->app.footer("Examples:\n" + examples);
  impl_->app.set_help_flag("-h,--help", "this text");
  impl_->names.push_back("--help");
}

Args::~Args() = default;

void Args::positional(const std::string& name, std::string& value, const std::string& help, Need need) {
  impl_->app.add_option(name, value, help)->required(need == Need::required)->type_name("");
}

void Args::positional(const std::string& name, std::optional<std::string>& value, const std::string& help) {
  impl_->app.add_option(name, value, help)->type_name("");
}

void Args::option(const std::string& names, std::string& value, const std::string& type, const std::string& help,
                  Need need) {
  add(impl_->app, impl_->names, names, value, help)->type_name(type)->required(need == Need::required);
}

void Args::option(const std::string& names, std::optional<std::string>& value, const std::string& type,
                  const std::string& help) {
  add(impl_->app, impl_->names, names, value, help)->type_name(type);
}

void Args::option(const std::string& names, int64_t& value, const std::string& help) {
  add_number<int64_t>(impl_->app, impl_->names, names, value, help);
}

void Args::option(const std::string& names, uint64_t& value, const std::string& help) {
  add_number<uint64_t>(impl_->app, impl_->names, names, value, help);
}

void Args::option(const std::string& names, std::optional<int64_t>& value, const std::string& help) {
  add_number<int64_t>(impl_->app, impl_->names, names, value, help);
}

void Args::option(const std::string& names, float& value, const std::string& help) {
  add_number<float>(impl_->app, impl_->names, names, value, help);
}

void Args::option(const std::string& names, std::optional<double>& value, const std::string& help) {
  add_number<double>(impl_->app, impl_->names, names, value, help);
}

void Args::list(const std::string& names, std::vector<std::string>& values, const std::string& type,
                const std::string& help) {
  // CLI11 puts dots of its own behind what takes several.
  add(impl_->app, impl_->names, names, values, help)->type_name(type.substr(0, type.find("...")));
}

void Args::repeated(const std::string& names, std::vector<std::string>& values, const std::string& type,
                    const std::string& help, Need need) {
  add(impl_->app, impl_->names, names, values, help)
      ->type_name(type)
      ->required(need == Need::required)
      ->allow_extra_args(false);
}

void Args::option_or_flag(const std::string& names, std::string& value, const std::string& alone,
                          const std::string& type, const std::string& help) {
  CLI::Option* option = add(impl_->app, impl_->names, names, value, help);
  option->type_name(type)->expected(0, 1)->default_str(alone)->run_callback_for_default(false);
  option->option_text("[" + type + "]");
}

void Args::flag(const std::string& names, std::optional<bool>& value, const std::string& help) {
  impl_->names.push_back(names);
  impl_->app.add_flag_callback(
      names, [&value] { value = true; }, help);
}

void Args::flag(const std::string& names, bool& value, const std::string& help) {
  impl_->names.push_back(names);
  impl_->app.add_flag(names, value, help);
}

bool Args::parse(const std::vector<std::string>& arguments) {
  const std::string command = impl_->app.get_name().substr(std::string("nibble ").size());
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // CLI11 takes them from the back
    impl_->app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    std::fputs(impl_->app.help().c_str(), stdout);
    return false;
  } catch (const CLI::ParseError& error) {
    refuse_unknown(impl_->app.remaining(), command, impl_->names);  // a misspelled option is also missing: say why
    fail(ErrorCode::invalid_argument, std::string(error.what()) + " (see 'nibble " + command + " --help')");
  }
  return true;
}

bool Args::is_given(const std::string& name) const { return impl_->app.count(name) > 0; }

void Common::declare(Args& args) {
  args.option("--threads", threads, "threads to use; 0 = all that this process may use");
  args.flag("--json", json, "one JSON object on stdout");
  args.flag("--quiet", quiet, "no progress on stderr");
}

void Common::apply() const {
  if (threads < 0 || threads > 1024) {
    fail(ErrorCode::invalid_argument, "--threads: found " + std::to_string(threads) + ", expected 0 to 1024");
  }
  set_threads(static_cast<int>(threads));
}

std::vector<int32_t> parse_ids(const std::string& text, const std::string& option) {
  std::vector<int32_t> ids;
  if (text.find_first_not_of(' ') == std::string::npos) return ids;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (!append_ids(text.substr(begin, end - begin), ids)) {
      fail(ErrorCode::invalid_argument, option + ": '" + text + "' is not a list of ids such as 1,2,3");
    }
    begin = end + 1;
  }
  return ids;
}

int64_t parse_integer(const std::string& text, const std::string& option) { return parse_item<int64_t>(text, option); }
double parse_finite(const std::string& text, const std::string& option) { return parse_item<double>(text, option); }

uint64_t parse_size(const std::string& text, const std::string& option) {
  struct Unit {
    const char* name;
    double bytes;
  };
  static constexpr Unit kUnits[] = {{"", 1},      {"B", 1},        {"KB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
                                    {"TB", 1e12}, {"KIB", 0x1p10}, {"MIB", 0x1p20}, {"GIB", 0x1p30}, {"TIB", 0x1p40},
                                    {"K", 1e3},   {"M", 1e6},      {"G", 1e9}};
  double number = 0;
  const auto [next, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  std::string unit(next, text.data() + text.size());
  std::erase(unit, ' ');
  for (char& c : unit) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  for (const Unit& u : kUnits) {
    const double bytes = number * u.bytes;
    if (error == std::errc() && unit == u.name && bytes >= 1 && bytes < 0x1p63) return static_cast<uint64_t>(bytes);
  }
  fail(ErrorCode::invalid_argument, option + ": '" + text + "' is not a size such as 500MB, 5GB or 2GiB");
}

}  // namespace nibble::cli
