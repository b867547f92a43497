#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "cli/commands.h"
#include "cli/finetune_page.h"
#include "cli/print.h"
#include "core/error.h"
#include "nibble/finetune.h"
#include "nibble/system.h"
#include "tasks/finetune_log.h"
#include "tasks/finetune_settings.h"

namespace nibble::cli {
namespace {

/// The flags as given; what was not given stays with the file of --config or the default.
struct Given {
  std::optional<std::string> config, data, eval_data, method, task, format, compute_dtype, init_adapter, optimizer,
      schedule, on_nonfinite, bias, init, granularity, qat_activations, merge_aware, activations;
  std::optional<int64_t> r, epochs, steps, batch, grad_accum, max_length, seed, eval_every, early_stopping, save_every,
      save_limit, block;
  std::optional<double> alpha, dropout, rate, warmup, weight_decay, beta1, beta2, epsilon, momentum, max_grad_norm;
  std::optional<bool> double_quant, packing, no_shuffle, checkpointing, tensorboard, rslora, dora;
  std::vector<std::string> target_modules, modules_to_save, skip;
  std::string resume;
  std::optional<std::string> report;
  bool overwrite = false, check_data = false;
};

void declare_training(Args& args, Given& g) {
  args.option("--learning-rate", g.rate, "default 2e-4 for adapters, 2e-5 without");
  args.option("--schedule", g.schedule, "NAME", "linear (default), cosine or constant");
  args.option("--warmup", g.warmup, "steps in which the rate rises from 0; below 1: a share of all steps");
  args.option("--epochs", g.epochs, "times through the data; default 1");
  args.option("--steps", g.steps, "steps of the optimizer, instead of epochs");
  args.option("--batch", g.batch, "samples that go through the model together; default 1");
  args.option("--grad-accum", g.grad_accum, "batches in a step; default 1");
  args.option("--max-length", g.max_length, "tokens of a sample; longer ones lose their ends; default 1024");
  args.flag("--packing", g.packing, "put samples into rows of --max-length tokens; they do not see each other");
  args.flag("--no-shuffle", g.no_shuffle, "in the order of the file");
  args.option("--seed", g.seed, "of the first values, the order and the dropout; default 0");
  args.option("--optimizer", g.optimizer, "NAME", "adamw (default), adamw8bit or sgd");
  args.option("--weight-decay", g.weight_decay, "default 0");
  args.option("--beta1", g.beta1, "of adamw; default 0.9");
  args.option("--beta2", g.beta2, "of adamw; default 0.999");
  args.option("--epsilon", g.epsilon, "of adamw; default 1e-8");
  args.option("--momentum", g.momentum, "of sgd; default 0");
  args.option("--max-grad-norm", g.max_grad_norm, "longer gradients are scaled down to it; 0 = never; default 1");
  args.flag("--gradient-checkpointing", g.checkpointing, "less memory for a third more work; the same results");
  args.option("--on-nonfinite", g.on_nonfinite, "stop|skip", "a loss or gradient that is not finite: stop (default)");
}

void declare_adapter(Args& args, Given& g) {
  args.option("--lora-r", g.r, "rank of the adapter; default 16");
  args.option("--lora-alpha", g.alpha, "its scale is alpha / r; default 32");
  args.option("--lora-dropout", g.dropout, "share of its inputs that are dropped; default 0");
  args.list("--target-modules", g.target_modules, "NAME...",
            "layers that get one: names or their ends, a regular expression, or all-linear (default)");
  args.list("--modules-to-save", g.modules_to_save, "NAME...", "modules that are trained whole");
  args.option("--bias", g.bias, "none|all|lora_only", "biases that are trained too; default none");
  args.flag("--rslora", g.rslora, "scale alpha / sqrt(r)");
  args.flag("--dora", g.dora, "train the lengths of the rows too (DoRA)");
  args.option("--init", g.init, "NAME", "how it begins: true (default), gaussian, pissa, pissa_niter_N; qlora: loftq");
  args.option("--init-adapter", g.init_adapter, "DIR", "start from an adapter's tensors and configuration");
}

void declare_rounding(Args& args, Given& g) {
  args.option("--format", g.format, "FORMAT",
              "qlora: what a dense base is quantized to; qat: what the result is; nf4 (default), fp4, int4, int8, "
              "int8-dynamic");
  args.flag("--double-quant", g.double_quant, "quantize the scales of a 4-bit format too");
  args.option("--block", g.block, "weights per scale of a 4-bit format; 0 = 64");
  args.option("--granularity", g.granularity, "channel|tensor", "int8-dynamic: one scale per row, or one in all");
  args.list("--skip", g.skip, "NAME...", "layers that are not quantized: full name, dotted prefix or suffix");
  args.option("--qat-activations", g.qat_activations, "dynamic|observed",
              "qat to int8-dynamic: the range of each token (default), or a fixed one that training observes");
  args.option("--merge-aware", g.merge_aware, "FORMAT",
              "lora, qlora: train through the rounding of a merge into this format, so that merge keeps the gain");
  args.option(
      "--activations", g.activations, "int16|fp32",
      "what weights that do not learn are multiplied in; int16 is faster with AVX-512 and AVX-VNNI; default fp32");
  args.option("--compute-dtype", g.compute_dtype, "DTYPE",
              "4-bit formats, of evaluation, and of training with qat; else training multiplies in fp32");
}

void declare(Args& args, Given& g) {
  args.option("--data", g.data, "FILE", "what to train on: .jsonl, .txt; for classifiers .tsv and .csv too");
  args.option("--eval-data", g.eval_data, "FILE", "measure the loss on it, and keep the best result in OUT/best");
  args.option("--method", g.method, "METHOD", "lora (default), qlora, full or qat");
  args.option("--task", g.task, "TASK", "causal_lm or seq_cls; default what the model is");
  args.option("--config", g.config, "FILE", "YAML file with these options, or in axolotl's words; flags win");
  declare_adapter(args, g);
  declare_rounding(args, g);
  declare_training(args, g);
  args.option("--eval-every", g.eval_every, "steps between evaluations; default an epoch");
  args.option("--early-stopping", g.early_stopping, "stop after so many evaluations without a better loss");
  args.option("--save-every", g.save_every, "steps between checkpoints");
  args.option("--save-limit", g.save_limit, "checkpoints to keep; default all");
  args.option_or_flag("--resume", g.resume, "last", "CHECKPOINT",
                      "continue from the newest checkpoint in OUT, or this one");
  args.flag("--tensorboard", g.tensorboard, "also write an event file for TensorBoard");
  args.option("--report", g.report, "FILE.html", "write a page with plots of the run, after --resume of all of it");
  args.flag("--check-data", g.check_data, "show what the data would train, and stop");
}

template <class Value, class Target>
void set(const std::optional<Value>& given, Target& target) {
  if (given) target = static_cast<Target>(*given);
}

/// One value that is more than a name is a regular expression; values may be separated by commas.
ModuleChoice module_choice(const std::vector<std::string>& given) {
  if (given.size() == 1 &&
      (given[0] == "all-linear" || given[0].find_first_of("*+?[](){}|^$\\") != std::string::npos)) {
    return given[0];
  }
  std::vector<std::string> names;
  for (const std::string& value : given) {
    for (size_t begin = 0; begin <= value.size();) {
      const size_t end = std::min(value.find(',', begin), value.size());
      if (end > begin) names.push_back(value.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return names;
}

void resolve_adapter(const Given& g, FinetuneOptions& o) {
  set(g.r, o.lora.r);
  set(g.alpha, o.lora.lora_alpha);
  set(g.dropout, o.lora.lora_dropout);
  set(g.bias, o.lora.bias);
  set(g.rslora, o.lora.use_rslora);
  set(g.dora, o.lora.use_dora);
  if (!g.target_modules.empty()) o.lora.target_modules = module_choice(g.target_modules);
  if (!g.modules_to_save.empty()) o.lora.modules_to_save = g.modules_to_save;
  set(g.init, o.lora.init_lora_weights);
  set(g.init_adapter, o.init_adapter);
  o.use_lora |= g.r || g.alpha || g.dropout || g.bias || g.rslora || g.dora || g.init || g.init_adapter ||
                !g.target_modules.empty() || !g.modules_to_save.empty();
}

void resolve_rounding(const Given& g, FinetuneOptions& o) {
  set(g.format, o.format);
  set(g.double_quant, o.double_quant);
  set(g.block, o.block);
  set(g.granularity, o.granularity);
  if (!g.skip.empty()) o.skip = g.skip;
  set(g.qat_activations, o.qat_activations);
  set(g.activations, o.activations);
  set(g.merge_aware, o.merge_aware);
  if (g.compute_dtype) o.compute_dtype = parse_dtype(*g.compute_dtype);
}

FinetuneOptions resolve(const Given& g) {
  FinetuneOptions o = g.config ? finetune_options_from_file(*g.config) : FinetuneOptions{};
  set(g.data, o.data);
  set(g.eval_data, o.eval_data);
  set(g.method, o.method);
  set(g.task, o.task);
  resolve_adapter(g, o);
  resolve_rounding(g, o);
  set(g.rate, o.learning_rate);
  set(g.schedule, o.schedule);
  set(g.warmup, o.warmup);
  set(g.epochs, o.epochs);
  set(g.steps, o.steps);
  set(g.batch, o.batch);
  set(g.grad_accum, o.grad_accum);
  set(g.max_length, o.max_length);
  set(g.packing, o.packing);
  if (g.no_shuffle) o.shuffle = false;
  set(g.seed, o.seed);
  set(g.optimizer, o.optimizer);
  set(g.weight_decay, o.weight_decay);
  set(g.beta1, o.beta1);
  set(g.beta2, o.beta2);
  set(g.epsilon, o.epsilon);
  set(g.momentum, o.momentum);
  set(g.max_grad_norm, o.max_grad_norm);
  set(g.checkpointing, o.gradient_checkpointing);
  set(g.on_nonfinite, o.on_nonfinite);
  set(g.eval_every, o.eval_every);
  set(g.early_stopping, o.early_stopping);
  set(g.save_every, o.save_every);
  set(g.save_limit, o.save_limit);
  set(g.tensorboard, o.tensorboard);
  if (!g.resume.empty()) o.resume = g.resume;
  o.overwrite = g.overwrite;
  return o;
}

Json data_json(const FinetuneData& d) {
  Json preview = Json::array(), warnings = Json::array();
  for (const PreviewPiece& piece : d.preview) {
    preview.push_back(Json::object({{"text", piece.text}, {"trained", piece.trained}}));
  }
  for (const std::string& warning : d.warnings()) warnings.push_back(warning);
  return Json::object({{"samples", d.samples},
                       {"tokens", d.tokens},
                       {"trained_tokens", d.trained_tokens},
                       {"longest", d.longest},
                       {"truncated", d.truncated},
                       {"dropped", d.dropped},
                       {"missing_eos", d.missing_eos},
                       {"double_bos", d.double_bos},
                       {"warnings", warnings},
                       {"preview", preview}});
}

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
                       {"data", data_json(r.data)}});
}

void print_data(const FinetuneData& d) {
  print_line(fmt::format("{} samples, {} tokens, {} of them trained ({:.0f} %), the longest {}", grouped(d.samples),
                         grouped(d.tokens), grouped(d.trained_tokens),
                         100.0 * static_cast<double>(d.trained_tokens) / static_cast<double>(d.tokens),
                         grouped(d.longest)));
  for (const std::string& warning : d.warnings()) note("nibble: warning: " + warning);
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
void check_report_file(const std::optional<std::string>& file) {
  if (!file) return;
  if (std::filesystem::is_directory(*file)) {
    fail(ErrorCode::io, "--report: " + *file + ": is a folder, expected the name of a file");
  }
  const std::filesystem::path folder = std::filesystem::absolute(*file).parent_path();
  if (std::filesystem::is_directory(folder)) return;
  fail(ErrorCode::io, "--report: " + *file + ": there is no folder " + folder.string());
}

/// What --adapter needs besides: an adapter that makes up for quantization is for a base that is quantized.
std::string base_words(const FinetuneOptions& o) {
  if (o.method != "qlora" || o.lora.init_lora_weights != "loftq" || !o.init_adapter.empty()) return "";
  std::string skip = o.skip.empty() ? "" : " --skip";
  for (const std::string& name : o.skip) skip += " " + name;
  return " --format " + o.format + (o.double_quant ? " --double-quant" : "") +
         (o.block ? " --block " + std::to_string(o.block) : "") +
         (o.granularity == "channel" ? "" : " --granularity " + o.granularity) + skip;
}

void print_report(const std::string& model, const FinetuneOptions& options, const FinetuneReport& r) {
  print_line(fmt::format("trained {} parameters in {} steps: loss {:.4f}{}, {:.0f} tokens/s, {} of memory",
                         grouped(r.trainable_parameters), r.steps, r.final_loss,
                         r.eval_loss ? fmt::format(", eval loss {:.4f}", *r.eval_loss) : "", r.tokens_per_second,
                         human_bytes(peak_rss_bytes())));
  if (r.stopped_early) print_line("stopped early: the eval loss no longer fell");
  if (r.best_eval_loss && r.best_eval_loss != r.eval_loss) {
    print_line(fmt::format("the best eval loss is {:.4f}, of {}/best", *r.best_eval_loss, r.output));
  }
  if (r.skipped_steps) note(fmt::format("nibble: warning: {} steps were skipped", r.skipped_steps));
  for (const std::string& name : r.unused_targets) {
    note("nibble: warning: target_modules: no module is called " + printable(name, 100));
  }
  print_line("wrote " + r.output);
  if (r.task != "causal_lm") return;
  print_line(r.method == "full" || r.method == "qat" ? fmt::format("next: nibble generate {} -p TEXT", r.output)
                                                     : fmt::format("next: nibble generate {}{} --adapter {} -p TEXT",
                                                                   model, base_words(options), r.output));
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
  const FinetuneData data = check_finetune_data(model, options);
  if (common.json) {
    json.print(model, data_json(data));
    return 0;
  }
  print_data(data);
  print_preview(data);
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
  args.flag("--overwrite", given.overwrite, "replace an existing output");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  FinetuneOptions options = resolve(given);
  options.progress = progress_bar(common);
  if (given.check_data) return check_data(model, options, common);
  if (out.empty()) fail(ErrorCode::invalid_argument, "--out: is missing, expected a folder to write to");
  check_report_file(given.report);
  const JsonReport json;
  if (!common.json) options.on_data = print_data;
  options.on_step = step_printer(common);
  const FinetuneReport report = finetune(model, out, options);
  if (common.json) {
    json.print(model, report_json(report));
  } else {
    print_report(model, options, report);
  }
  if (given.report) write_page(*given.report, {model, report, read_finetune_log(out)}, json);
  return 0;
}

}  // namespace nibble::cli
