#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/finetune_page.h"
#include "cli/print.h"
#include "core/error.h"
#include "nibble/finetune.h"
#include "nibble/system.h"
#include "tasks/finetune_keys.h"
#include "tasks/finetune_log.h"
#include "tasks/finetune_settings.h"

namespace nibble::cli {
namespace {

/// A flag of the table, and what was given with it.
struct Flag {
  const FinetuneKey* key;
  std::optional<std::string> text = {};
  std::optional<int64_t> integer = {};
  std::optional<double> number = {};
  std::optional<bool> flag = {};
  std::vector<std::string> texts = {};
  std::string may_stand_alone = {};
};

/// The flags as given; what was not given stays with the file of --config or the default.
struct Given {
  std::vector<Flag> flags = {};
  std::optional<std::string> config = {};
  bool check_data = false;
};

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};
template <class... Functions>
Overloaded(Functions...) -> Overloaded<Functions...>;  // clang 14 deduces nothing for aggregates

std::string flag_name(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return "--" + name;
}

/// REGEX=VALUE; a regular expression may have signs of equality too.
std::pair<std::string, std::string> split_pattern(const std::string& text, const std::string& flag) {
  const size_t at = text.rfind('=');
  if (at != std::string::npos && at > 0) return {text.substr(0, at), text.substr(at + 1)};
  fail(ErrorCode::invalid_argument, flag + ": found '" + printable(text, 100) + "', expected REGEX=VALUE");
}

/// As the setters take the values of a list.
void read_list(const std::vector<std::string>& texts, const std::string& flag, std::vector<int64_t>& values) {
  for (const std::string& text : texts) values.push_back(parse_integer(text, flag));
}
void read_list(const std::vector<std::string>& texts, const std::string& flag, ByPattern<int64_t>& values) {
  for (const std::string& text : texts) {
    const auto [pattern, value] = split_pattern(text, flag);
    values.emplace_back(pattern, parse_integer(value, flag));
  }
}
void read_list(const std::vector<std::string>& texts, const std::string& flag, ByPattern<double>& values) {
  for (const std::string& text : texts) {
    const auto [pattern, value] = split_pattern(text, flag);
    values.emplace_back(pattern, parse_finite(value, flag));
  }
}

void declare(Args& args, Flag& f) {
  const std::string name = flag_name(std::string(f.key->name)), type(f.key->type), help(f.key->help);
  const auto text = [&](SetText) {
    if (f.key->alone.empty()) return args.option(name, f.text, type, help);
    args.option_or_flag(name, f.may_stand_alone, std::string(f.key->alone), type, help);
  };
  std::visit(
      Overloaded{text, [&](SetInteger) { args.option(name, f.integer, help); },
                 [&](SetNumber) { args.option(name, f.number, help); }, [&](SetFlag) { args.flag(name, f.flag, help); },
                 [&](auto) { args.list(name, f.texts, type, help); }},
      f.key->set);
}

void declare(Args& args, Given& g) {
  args.option("--config", g.config, "FILE", "YAML file with these options, or in axolotl's words; flags win");
  for (const FinetuneKey& key : finetune_keys()) g.flags.push_back({.key = &key});
  for (Flag& flag : g.flags) declare(args, flag);  // all are where they stay
  args.flag("--check-data", g.check_data, "check options and model, show what the data would train, and stop");
}

bool is_given(const Flag& f) {
  return f.text || f.integer || f.number || f.flag || !f.texts.empty() || !f.may_stand_alone.empty();
}

void apply(const Flag& f, FinetuneRequest& request) {
  std::visit(
      Overloaded{[&](SetText set) { set(request, f.text.value_or(f.may_stand_alone)); },
                 [&](SetInteger set) { set(request, *f.integer); }, [&](SetNumber set) { set(request, *f.number); },
                 [&](SetFlag set) { set(request, *f.flag); }, [&](SetTexts set) { set(request, f.texts); },
                 [&]<class List>(void (*set)(FinetuneRequest&, const List&)) {
                   List values;
                   read_list(f.texts, flag_name(std::string(f.key->name)), values);
                   set(request, values);
                 }},
      f.key->set);
  if (f.key->of_adapter) request.ask_for_adapter(f.key->name);
}

FinetuneRequest resolve(const Given& g) {
  GivenFlags given;
  for (const Flag& flag : g.flags) {
    if (is_given(flag)) given.emplace(flag.key->name, flag.text.value_or(""));
  }
  FinetuneRequest request = g.config ? read_finetune_file(*g.config, given) : FinetuneRequest{};
  for (const Flag& flag : g.flags) {
    if (is_given(flag)) apply(flag, request);
  }
  refuse_unused_adapter(request);
  return request;
}

Json list_of(const std::vector<std::string>& lines) {
  Json list = Json::array();
  for (const std::string& line : lines) list.push_back(line);
  return list;
}

Json data_json(const FinetuneData& d) {
  Json preview = Json::array();
  for (const PreviewPiece& piece : d.preview) {
    preview.push_back(Json::object({{"text", piece.text}, {"trained", piece.trained}}));
  }
  return Json::object({{"samples", d.samples},
                       {"tokens", d.tokens},
                       {"trained_tokens", d.trained_tokens},
                       {"longest", d.longest},
                       {"max_length", d.max_length},
                       {"truncated", d.truncated},
                       {"dropped", d.dropped},
                       {"missing_eos", d.missing_eos},
                       {"double_bos", d.double_bos},
                       {"warnings", list_of(d.warnings())},
                       {"preview", preview}});
}

Json data_json(const std::optional<FinetuneData>& d) { return d ? data_json(*d) : Json(); }

Json report_json(const FinetuneReport& r) {
  const auto or_null = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  return Json::object({{"output", r.output},
                       {"method", r.method},
                       {"task", r.task},
                       {"steps", r.steps},
                       {"skipped_steps", r.skipped_steps},
                       {"final_loss", r.final_loss},
                       {"eval_loss", or_null(r.eval_loss)},
                       {"best_eval_loss", or_null(r.best_eval_loss)},
                       {"stopped_early", r.stopped_early},
                       {"trainable_parameters", r.trainable_parameters},
                       {"tokens", r.tokens},
                       {"tokens_per_second", r.tokens_per_second},
                       {"warnings", list_of(r.warnings)},
                       {"data", data_json(r.data)},
                       {"eval_data", data_json(r.eval_data)}});
}

void print_data(const FinetuneData& d, const std::string& heading) {
  print_line(fmt::format("{}{} samples, {} tokens, {} of them trained ({:.0f} %), the longest {}", heading,
                         grouped(d.samples), grouped(d.tokens), grouped(d.trained_tokens),
                         100.0 * static_cast<double>(d.trained_tokens) / static_cast<double>(d.tokens),
                         grouped(d.longest)));
  for (const std::string& warning : d.warnings()) note("nibble: warning: " + heading + warning);
}

void print_data_sets(const FinetuneDataSets& sets) {
  print_data(sets.data, "");
  if (sets.eval_data) print_data(*sets.eval_data, "eval data: ");
}

/// The first sample, what is trained of it in green, or between >> and << where there are no colours.
void print_preview(const FinetuneData& d) {
  const bool colours = isatty(fileno(stdout)) != 0;
  const char* open = colours ? "\x1b[32m" : ">>";
  const char* close = colours ? "\x1b[0m" : "<<";
  print_line("the first sample, what is trained " + std::string(colours ? "in green:" : "between >> and <<:"));
  for (const PreviewPiece& piece : d.preview) {
    // Line breaks stay as they are; other control bytes would reach the terminal.
    std::string text;
    for (const char c : piece.text) text += c == '\n' || static_cast<unsigned char>(c) >= 0x20 ? c : '?';
    print(piece.trained ? open + text + close : text);
  }
  print_line();
}

std::string step_line(const FinetuneStep& s) {
  const auto left = static_cast<int64_t>(s.seconds_left);
  return fmt::format("\rstep {}/{}  loss {:.4f}  rate {:.2e}  {:.0f} tokens/s  {}  {}:{:02}:{:02} left \x1b[K", s.step,
                     s.steps, s.loss, s.learning_rate, s.tokens_per_second, human_bytes(peak_rss_bytes()), left / 3600,
                     left / 60 % 60, left % 60);
}

std::function<void(const FinetuneStep&)> step_printer(const Common& common) {
  if (common.quiet || !isatty(fileno(stderr))) return {};
  return [](const FinetuneStep& step) {
    std::fputs(step_line(step).c_str(), stderr);
    if (step.eval_loss)
      std::fputs(fmt::format("\r\x1b[Kstep {}: eval loss {:.4f}\n", step.step, *step.eval_loss).c_str(), stderr);
    if (step.step == step.steps) std::fputs("\r\x1b[K", stderr);
  };
}

/// Before hours of training.
void check_report_file(const std::string& file) {
  if (file.empty()) return;
  if (std::filesystem::is_directory(file)) {
    fail(ErrorCode::io, "--report: " + file + ": is a folder, expected the name of a file");
  }
  const std::filesystem::path folder = std::filesystem::absolute(file).parent_path();
  if (std::filesystem::is_directory(folder)) return;
  fail(ErrorCode::io, "--report: " + file + ": there is no folder " + folder.string());
}

/// What --adapter needs besides: an adapter that makes up for quantization is for a base that is quantized so. `o` as
/// they were used; the beginning is the one that was asked for.
std::string base_words(const FinetuneOptions& o, const std::string& beginning) {
  if (o.method != "qlora" || o.format.empty() || beginning != "loftq" || !o.init_adapter.empty()) return "";
  std::string skip = o.skip.empty() ? "" : " --skip";
  for (const std::string& name : o.skip) skip += " " + name;
  return " --format " + o.format + (o.double_quant ? " --double-quant" : "") +
         (o.block ? " --block " + std::to_string(o.block) : "") +
         (o.granularity == "channel" ? "" : " --granularity " + o.granularity) + skip;
}

void print_warnings(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) note("nibble: warning: " + warning);
}

void print_report(const std::string& model, const std::string& beginning, const FinetuneReport& r) {
  print_line(fmt::format("trained {} parameters in {} steps: loss {:.4f}{}, {:.0f} tokens/s, {} of memory",
                         grouped(r.trainable_parameters), r.steps, r.final_loss,
                         r.eval_loss ? fmt::format(", eval loss {:.4f}", *r.eval_loss) : "", r.tokens_per_second,
                         human_bytes(peak_rss_bytes())));
  if (r.stopped_early) print_line("stopped early: the eval loss no longer fell");
  if (r.best_eval_loss && r.best_eval_loss != r.eval_loss) {
    print_line(fmt::format("the best eval loss is {:.4f}, of {}/best", *r.best_eval_loss, r.output));
  }
  if (r.skipped_steps) note(fmt::format("nibble: warning: {} steps were skipped", r.skipped_steps));
  print_warnings(r.warnings);
  print_line("wrote " + r.output);
  if (r.task != "causal_lm") return;
  print_line(r.method == "full" || r.method == "qat" ? fmt::format("next: nibble generate {} -p TEXT", r.output)
                                                     : fmt::format("next: nibble generate {}{} --adapter {} -p TEXT",
                                                                   model, base_words(r.options, beginning), r.output));
}

void write_page(const std::string& file, const FinetuneRun& run, const JsonReport& json) {
  Json members = report_json(run.report), log = Json::array();
  for (const FinetuneStep& step : run.steps) log.push_back(step_json(step));
  members.set("settings", all_settings(run.report.options));
  members.set("log", log);
  ReportPage page = page_of(run);
  page.json = json.text(run.model, members);
  write_report(file, page);
}

int check_data(const std::string& model, const FinetuneOptions& options, const Common& common) {
  const JsonReport json;
  const FinetuneDataSets sets = check_finetune_data(model, options);
  if (common.json) {
    Json members = data_json(sets.data);
    std::vector<std::string> warnings = sets.data.warnings();
    warnings.insert(warnings.end(), sets.warnings.begin(), sets.warnings.end());
    members.set("warnings", list_of(warnings));
    members.set("eval_data", data_json(sets.eval_data));
    json.print(model, members);
    return 0;
  }
  print_data_sets(sets);
  print_warnings(sets.warnings);
  print_preview(sets.data);
  return 0;
}

}  // namespace

int cmd_finetune(const Arguments& arguments) {
  Common common;
  Given given;
  std::string model, out;
  Args args("finetune",
            "Trains an adapter of a model (LoRA, QLoRA) or the whole model on your data, for quantization too.",
            "  nibble finetune smollm2-135m -o my-adapter --method qlora --format nf4 --data train.jsonl\n"
            "  nibble finetune smollm2-135m --data train.jsonl --check-data\n"
            "  nibble finetune bert-sst2 -o tuned --method full --data train.tsv --eval-data dev.tsv --epochs 3\n"
            "  nibble finetune bert-sst2 -o bert-int4 --method qat --format int4 --data train.tsv --epochs 1\n"
            "  nibble finetune smollm2-135m -o my-adapter --merge-aware nf4 --data train.jsonl\n"
            "  nibble finetune smollm2-135m -o my-adapter --config run.yaml --resume");
  args.positional("MODEL", model, "folder, .gguf file or hub id");
  args.option("-o,--out", out, "FOLDER", "where to write");
  declare(args, given);
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  FinetuneRequest request = resolve(given);
  refuse_other_base(request, model);
  if (!args.is_given("--threads")) common.threads = request.threads;
  common.apply();
  FinetuneOptions& options = request.options;
  options.progress = progress_bar(common);
  if (given.check_data) return check_data(model, options, common);
  if (out.empty()) fail(ErrorCode::invalid_argument, "--out: is missing, expected a folder to write to");
  check_report_file(request.report);
  const JsonReport json;
  if (!common.json) options.on_data = print_data_sets;
  options.on_step = step_printer(common);
  const FinetuneReport report = finetune(model, out, options);
  if (common.json) {
    json.print(model, report_json(report));
  } else {
    print_report(model, options.lora.init_lora_weights, report);
  }
  if (!request.report.empty()) write_page(request.report, {model, report, read_finetune_log(out)}, json);
  return 0;
}

}  // namespace nibble::cli
