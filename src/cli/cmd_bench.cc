#include <fmt/format.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/print.h"
#include "core/error.h"
#include "core/limits.h"
#include "nibble/bench.h"
#include "nibble/report.h"
#include "text/text_file.h"

namespace nibble::cli {
namespace {

constexpr double kMiB = 1 << 20;

using Rows = std::vector<std::vector<std::string>>;

std::string share(double value, double baseline) {
  return baseline > 0 ? fmt::format(" ({:.0f} %)", 100 * value / baseline) : "";
}

std::string rate(double value) { return fixed(value, value < 1000 ? 1 : 0); }

std::string speed(const Spread& s, const Spread& baseline) { return rate(s.median) + share(s.median, baseline.median); }

std::string range(const Spread& s) { return rate(s.low) + " to " + rate(s.high); }

/// For plots: a path by its last part, and no more of it than there is room for.
std::string short_name(const std::string& name) {
  constexpr size_t kMost = 18;
  std::string text = name.substr(name.find_last_of('/', name.size() - 2) + 1);
  if (text.size() > kMost) text = text.substr(0, kMost - 3) + "...";
  return text;
}

/// All figures of a row, the sizes and speeds also as shares of the first.
Rows table(const BenchReport& r) {
  const BenchRow& first = r.rows[0];
  const bool text = first.perplexity.has_value(), energy = first.joules_per_token.has_value();
  Rows rows = {{"format", "weights", "load s", "prefill tokens/s", "prefill range", "decode tokens/s", "decode range",
                "peak memory"}};
  if (energy) rows[0].emplace_back("J/token");
  if (text) rows[0].insert(rows[0].end(), {"perplexity", "KL (nats)", "top-1 agrees"});
  const auto number = [](const std::optional<double>& v, int digits) { return v ? fixed(*v, digits) : std::string(); };
  for (const BenchRow& row : r.rows) {
    rows.push_back(
        {row.name, human_bytes(row.bytes) + share(static_cast<double>(row.bytes), static_cast<double>(first.bytes)),
         fixed(row.load_seconds.median, 2), speed(row.prefill_tokens_per_second, first.prefill_tokens_per_second),
         range(row.prefill_tokens_per_second), speed(row.decode_tokens_per_second, first.decode_tokens_per_second),
         range(row.decode_tokens_per_second), row.peak_rss_bytes ? human_bytes(row.peak_rss_bytes) : ""});
    if (energy) rows.back().push_back(number(row.joules_per_token, 3));
    if (text) {
      rows.back().push_back(number(row.perplexity, 3));
      rows.back().push_back(number(row.kl_mean, 5));
      rows.back().push_back(row.top1_agreement ? fixed(100 * *row.top1_agreement, 2) + " %" : "");
    }
  }
  return rows;
}

Json spread_json(const Spread& s) { return Json::object({{"low", s.low}, {"high", s.high}}); }

Json to_json(const BenchReport& r) {
  Json rows = Json::array();
  for (const BenchRow& row : r.rows) {
    Json out = Json::object({{"format", row.name},
                             {"bytes", row.bytes},
                             {"load_seconds", row.load_seconds.median},
                             {"prefill_tokens_per_second", row.prefill_tokens_per_second.median},
                             {"prefill_range", spread_json(row.prefill_tokens_per_second)},
                             {"decode_tokens_per_second", row.decode_tokens_per_second.median},
                             {"decode_range", spread_json(row.decode_tokens_per_second)},
                             {"peak_rss_bytes", row.peak_rss_bytes}});
    const auto set = [&](const char* name, const std::optional<double>& v) { out.set(name, v ? Json(*v) : Json()); };
    set("joules_per_token", row.joules_per_token);
    set("perplexity", row.perplexity);
    set("kl_mean", row.kl_mean);
    set("top1_agreement", row.top1_agreement);
    rows.push_back(std::move(out));
  }
  return Json::object({{"isa", r.isa}, {"threads", r.threads}, {"load_average", r.load_average}, {"rows", rows}});
}

std::string circumstances(const BenchReport& r) {
  return fmt::format("{}, {} threads, load average {:.1f} at the beginning; percentages are of {}", r.isa, r.threads,
                     r.load_average, r.rows[0].name);
}

/// Columns of the table by their heads, as far as it has them, for a page on which all of them have no room beside each
/// other.
Rows columns(const Rows& all, std::initializer_list<std::string_view> heads) {
  Rows rows(all.size());
  for (const std::string_view head : heads) {
    const auto found = std::find(all[0].begin(), all[0].end(), head);
    if (found == all[0].end()) continue;
    const auto c = static_cast<size_t>(found - all[0].begin());
    for (size_t r = 0; r < all.size(); ++r) rows[r].push_back(all[r][c]);
  }
  return rows;
}

ReportPage page(const std::string& model, const BenchReport& r) {
  ScatterPlot accuracy = {.title = "Size and accuracy",
                          .note = "To the left and below is better; a larger dot decodes faster.",
                          .x_label = "MiB of weights",
                          .y_label = "KL against the stored model (nats)"};
  BarChart decode = {.title = "Decoding speed", .note = "Median of the rounds.", .x_label = "", .y_label = "tokens/s"};
  for (const BenchRow& row : r.rows) {
    const double mib = static_cast<double>(row.bytes) / kMiB, rate = row.decode_tokens_per_second.median;
    if (row.kl_mean) accuracy.dots.push_back({.name = short_name(row.name), .x = mib, .y = *row.kl_mean, .size = rate});
    decode.bars.push_back({.name = row.name, .tick = short_name(row.name), .value = rate});
  }
  ReportPage out = {.title = "nibble bench: " + model, .headlines = {circumstances(r)}, .json = to_json(r).dump()};
  const Rows all = table(r);
  if (r.rows[0].perplexity) {
    out.parts.emplace_back(ReportTable{.title = "Accuracy",
                                       .note = "KL and agreement against the model as it is stored.",
                                       .rows = columns(all, {"format", "perplexity", "KL (nats)", "top-1 agrees"})});
  }
  if (!accuracy.dots.empty()) out.parts.emplace_back(accuracy);
  const std::string note = "The median of the rounds and the range they span.";
  out.parts.emplace_back(ReportTable{
      .title = "Prefill", .note = note, .rows = columns(all, {"format", "prefill tokens/s", "prefill range"})});
  out.parts.emplace_back(decode);
  out.parts.emplace_back(ReportTable{
      .title = "Decoding", .note = note, .rows = columns(all, {"format", "decode tokens/s", "decode range"})});
  out.parts.emplace_back(ReportTable{.title = "Memory",
                                     .note = "Weights in memory, and the most that the process held.",
                                     .rows = columns(all, {"format", "weights", "peak memory", "load s", "J/token"})});
  return out;
}

/// "a,b" and "a b" alike.
std::vector<std::string> split(const std::vector<std::string>& given) {
  std::vector<std::string> names;
  for (const std::string& text : given) {
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      if (end > begin) names.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return names;
}

}  // namespace

int cmd_bench(const Arguments& arguments) {
  Common common;
  BenchOptions options;
  std::string model;
  std::vector<std::string> formats;
  std::optional<std::string> text, report_file;
  Args args("bench", "Size, speed, memory and accuracy of a model in every format, on this machine.",
            "  nibble bench smollm2-135m --text wiki.txt\n"
            "  nibble bench smollm2-135m --formats fp32,nf4,nf4+dq --repeat 5 --report bench.html\n"
            "  nibble bench smollm2-135m --formats stored,nf4 --against smollm2.Q4_1.gguf");
  args.positional("MODEL", model, "folder, .gguf file or hub id");
  args.list("--formats", formats, "A,B", "what to load it as, the baseline first; +dq = with double quantization");
  args.repeated("--against", options.against, "MODEL", "another model as it is stored; may be repeated");
  args.option("--activations", options.activations, "int8|int16|fp32",
              "4-bit formats, GGUF: what weights are multiplied with");
  ModelArgs::declare_head(args, options.head);
  args.option("--text", text, "FILE", "measure perplexity and KL on this text too");
  args.option("--max-tokens", options.max_tokens, "of the text; default 4096");
  args.option("--context", options.context, "ids per chunk of the text; default 512");
  args.option("--prompt-tokens", options.prompt_tokens, "default 256");
  args.option("--gen-tokens", options.gen_tokens, "default 64");
  args.option("--repeat", options.repeat, "rounds; in each of them every row is measured once; default 3");
  args.option("--report", report_file, "FILE.html", "write a page with the table and plots");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  const JsonReport json;
  options.formats = split(formats);
  if (text) {
    options.text = read_utf8_file(*text, limits::kMaxStringBytes);
    if (options.text.empty()) fail(ErrorCode::invalid_argument, *text + ": the file is empty");
  }
  options.progress = progress_bar(common);
  const BenchReport report = bench(model, options);
  if (common.json) {
    json.print(model, to_json(report));
  } else {
    print_table(table(report));
    note(circumstances(report));
  }
  if (report_file) write_report(*report_file, page(model, report));
  return 0;
}

}  // namespace nibble::cli
