#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/print.h"
#include "core/error.h"
#include "nibble/plan.h"
#include "tasks/plan_text.h"

namespace nibble::cli {
namespace {

struct Given {
  std::string model, kv_dtype = "auto";
  std::optional<std::string> task, method, optimizer, memory, format;
  std::optional<int64_t> lora_r;
  PlanOptions options;
  bool names = false;

  void declare(Args& args);
  PlanOptions resolve() const;
  void refuse_training_options() const;
};

void Given::declare(Args& args) {
  PlanOptions& o = options;
  args.positional("MODEL", model, "folder, config.json, .gguf file, hub id, or a built-in name", Args::Need::optional);
  args.option("--format", format, "FORMAT", "one format in detail; without it inference compares all");
  args.flag("--double-quant", o.double_quant, "with a 4-bit --format: the scales in 8 bits too");
  args.option("--block", o.block, "4-bit formats: weights per scale; 0 = 64");
  args.option("--granularity", o.granularity, "channel|tensor", "int8-dynamic: a scale per row, or one in all");
  args.list("--skip", o.skip, "NAME...", "layers to keep: full name, dotted prefix or suffix");
  args.option("--task", task, "TASK", "inference (default) or finetune");
  args.option("--context", o.context, "positions per sequence; 0 = the model's own, at most 4096");
  args.option("--batch", o.batch, "sequences at the same time");
  args.option("--prompt-tokens", o.prompt_tokens, "the longest prompt; 0 = as long as the context");
  args.option("--kv-dtype", kv_dtype, "DTYPE",
              "of the cache: auto (default: as generate has it), fp32, fp16, bf16 or int8");
  ModelArgs::declare_head(args, o.head);
  args.option("--method", method, "METHOD", "finetune: lora, qlora (default) or full; implies --task finetune");
  args.option("--lora-r", lora_r, "finetune: rank of the adapters; default 16");
  args.list("--target-modules", o.target_modules, "NAME...", "finetune: layers with adapters; default all-linear");
  args.option("--optimizer", optimizer, "NAME", "finetune: adamw (default), adamw8bit or sgd");
  args.flag("--gradient-checkpointing", o.gradient_checkpointing, "finetune: keep each layer's input only");
  args.option("--memory", memory, "SIZE", "what there is, 8GB or 7.5GiB: does it fit, and what would");
  args.flag("--names", names, "list the built-in names");
}

void Given::refuse_training_options() const {
  const std::pair<const char*, bool> options_given[] = {{"--method", method.has_value()},
                                                        {"--lora-r", lora_r.has_value()},
                                                        {"--target-modules", !options.target_modules.empty()},
                                                        {"--optimizer", optimizer.has_value()},
                                                        {"--gradient-checkpointing", options.gradient_checkpointing}};
  for (const auto& [name, is_given] : options_given) {
    if (is_given) fail(ErrorCode::invalid_argument, std::string(name) + " is for --task finetune, not for inference");
  }
}

PlanOptions Given::resolve() const {
  PlanOptions o = options;
  o.format = format.value_or("");
  o.kv_dtype = parse_kv_dtype(kv_dtype);
  o.task = parse_plan_task(task.value_or(method ? "finetune" : "inference"));
  if (method) o.method = parse_finetune_method(*method);
  if (optimizer) o.optimizer = parse_optimizer(*optimizer);
  o.lora_r = lora_r.value_or(o.lora_r);
  if (o.task != PlanTask::finetune) refuse_training_options();
  if (memory) o.memory = parse_size(*memory, "--memory");
  return o;
}

std::string format_label(const MemoryPlan& p) { return p.format + (p.double_quant ? " + double quant" : ""); }

Json weights_json(const WeightBytes& w) {
  return Json::object({{"linears", w.linears},
                       {"embeddings", w.embeddings},
                       {"head", w.head},
                       {"norms", w.norms},
                       {"biases", w.biases},
                       {"scales", w.scales},
                       {"double_quant", w.double_quant},
                       {"tables", w.tables},
                       {"other", w.other}});
}

Json strings(const std::vector<std::string>& list) {
  Json out = Json::array();
  for (const std::string& text : list) out.push_back(text);
  return out;
}

Json plan_json(const MemoryPlan& p, bool asked) {
  Json out = Json::object({{"architecture", p.architecture},
                           {"task", p.task == PlanTask::inference ? "inference" : "finetune"},
                           {"format", p.format},
                           {"double_quant", p.double_quant},
                           {"block", p.block},
                           {"head", p.head},
                           {"parameters", p.parameters},
                           {"context", p.context},
                           {"batch", p.batch},
                           {"context_length", p.context_length},
                           {"weights_bytes", p.weights_bytes},
                           {"weights", weights_json(p.weights)},
                           {"file_bytes", p.file_bytes},
                           {"resident_bytes", p.resident_bytes},
                           {"kv_dtype", p.kv_cache_bytes ? Json(dtype_name(p.kv_dtype)) : Json()},
                           {"kv_cache_bytes", p.kv_cache_bytes},
                           {"prefill_bytes", p.prefill_bytes},
                           {"decode_bytes", p.decode_bytes},
                           {"activation_bytes", p.activation_bytes},
                           {"trainable_parameters", p.trainable_parameters},
                           {"lora_bytes", p.lora_bytes},
                           {"gradient_bytes", p.gradient_bytes},
                           {"optimizer_bytes", p.optimizer_bytes},
                           {"program_bytes", p.program_bytes},
                           {"total_bytes", p.total_bytes}});
  Json lengths = Json::array();
  for (const TrainingLength& row : p.lengths) {
    lengths.push_back(Json::object({{"context", row.context},
                                    {"activation_bytes", row.activation_bytes},
                                    {"activation_bytes_checkpointed", row.activation_bytes_checkpointed},
                                    {"total_bytes", row.total_bytes},
                                    {"total_bytes_checkpointed", row.total_bytes_checkpointed}}));
  }
  out.set("lengths", lengths);
  out.set("fits", asked ? Json(p.fits) : Json());
  out.set("largest_context_that_fits", asked ? Json(p.largest_context_that_fits) : Json());
  out.set("largest_batch_that_fits", asked ? Json(p.largest_batch_that_fits) : Json());
  out.set("advice", strings(p.advice));
  return out;
}

std::string heading(const MemoryPlan& p) {
  const std::string kind = p.architecture.empty() ? "" : p.architecture + ", ";
  return fmt::format("{} ({}{:.1f} M parameters), {}, context {}, batch {}", p.model, kind,
                     static_cast<double>(p.parameters) / 1e6,
                     p.task == PlanTask::inference ? "inference" : "fine-tuning", p.context, p.batch);
}

void print_formats(const std::vector<MemoryPlan>& plans, bool asked) {
  print_line(heading(plans[0]));
  std::vector<std::vector<std::string>> rows = {{"format", "weights", "in memory", "KV cache", "activations", "total"}};
  if (asked) rows[0].insert(rows[0].end(), {"fits", "longest context"});
  for (const MemoryPlan& p : plans) {
    rows.push_back({format_label(p), size_text(p.weights_bytes), size_text(p.resident_bytes),
                    size_text(p.kv_cache_bytes), size_text(p.activation_bytes), size_text(p.total_bytes)});
    if (asked)
      rows.back().insert(rows.back().end(), {p.fits ? "yes" : "no", std::to_string(p.largest_context_that_fits)});
  }
  print_table(rows);
  print_line(fmt::format("  total: weights in memory, what stands beside them, and {} for the program and tokenizer",
                         size_text(plans[0].program_bytes)));
}

using Rows = std::vector<std::vector<std::string>>;

void add_row(Rows& rows, const std::string& name, uint64_t bytes) {
  if (bytes > 0) rows.push_back({name, size_text(bytes), grouped(static_cast<int64_t>(bytes))});
}

void print_lengths(const MemoryPlan& p) {
  if (p.lengths.empty()) return;
  Rows rows = {{"tokens", "activations", "total", "with checkpointing", "total"}};
  for (const TrainingLength& row : p.lengths) {
    rows.push_back({std::to_string(row.context), size_text(row.activation_bytes), size_text(row.total_bytes),
                    size_text(row.activation_bytes_checkpointed), size_text(row.total_bytes_checkpointed)});
  }
  print_line("\nby tokens per sequence:");
  print_table(rows);
}

void print_plan(const MemoryPlan& p, const PlanOptions& options) {
  print_line(heading(p));
  print_line(fmt::format("weights in {}{}{}", format_label(p), p.block ? fmt::format(", block {}", p.block) : "",
                         p.head == "keep" ? "" : ", the output head in memory in " + p.head));
  const WeightBytes& w = p.weights;
  Rows rows = {{"stored", "size", "bytes"}};
  add_row(rows, "linear layers", w.linears);
  add_row(rows, "block and row scales", w.scales);
  add_row(rows, "double quantization", w.double_quant);
  add_row(rows, "tables and descriptions", w.tables);
  add_row(rows, "embeddings", w.embeddings);
  add_row(rows, "output head", w.head);
  add_row(rows, "norms", w.norms);
  add_row(rows, "biases", w.biases);
  add_row(rows, "not used", w.other);
  add_row(rows, "= weights", p.weights_bytes);
  add_row(rows, "= files with headers", p.file_bytes);
  print_table(rows);
  print_line();
  rows = {{"in memory", "size", "bytes"}};
  add_row(rows, "weights", p.resident_bytes);
  add_row(rows, fmt::format("KV cache, {}", dtype_name(p.kv_dtype)), p.kv_cache_bytes);
  add_row(rows, p.task == PlanTask::inference ? "activations, prompt" : "activations",
          p.task == PlanTask::inference ? p.prefill_bytes : p.activation_bytes);
  add_row(rows, "LoRA weights", p.lora_bytes);
  add_row(rows, "gradients", p.gradient_bytes);
  add_row(rows, "optimizer state", p.optimizer_bytes);
  add_row(rows, "program and tokenizer", p.program_bytes);
  add_row(rows, "= total", p.total_bytes);
  print_table(rows);
  if (p.task == PlanTask::inference && p.decode_bytes > 0) {
    print_line(fmt::format("  after the prompt, {} of activations are enough", size_text(p.decode_bytes)));
  }
  print_lengths(p);
  if (!options.memory) return;
  print_line(fmt::format("\n{} in {}", p.fits ? "fits" : "does not fit", size_text(*options.memory)));
  for (const std::string& line : p.advice) print_line("  - " + line);
}

int list_names(const Common& common, const JsonReport& report) {
  if (common.json) {
    report.print("", Json::object({{"names", strings(known_models())}}));
  } else {
    for (const std::string& name : known_models()) print_line(name);
  }
  return 0;
}

}  // namespace

int cmd_plan(const Arguments& arguments) {
  Common common;
  Given given;
  Args args("plan", "The memory a model takes, by part, from its configuration alone.",
            "  nibble plan llama-2-7b --memory 8GB\n"
            "  nibble plan smollm2-135m --format nf4 --double-quant --context 2048\n"
            "  nibble plan config.json --method qlora --lora-r 16 --context 512 --gradient-checkpointing --memory 8GB");
  given.declare(args);
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  const JsonReport report;
  if (given.names) return list_names(common, report);
  if (given.model.empty()) fail(ErrorCode::invalid_argument, "MODEL is required (--names lists the built-in ones)");
  const PlanOptions options = given.resolve();
  const bool asked = options.memory.has_value();
  if (given.format || options.task == PlanTask::finetune) {
    const MemoryPlan p = plan(given.model, options);
    if (common.json) {
      report.print(given.model, plan_json(p, asked));
    } else {
      print_plan(p, options);
    }
    return 0;
  }
  if (options.double_quant) fail(ErrorCode::invalid_argument, "--double-quant needs --format");
  const std::vector<MemoryPlan> plans = plan_formats(given.model, options);
  if (!common.json) {
    print_formats(plans, asked);
    return 0;
  }
  Json all = Json::array();
  for (const MemoryPlan& p : plans) all.push_back(plan_json(p, asked));
  Json out = plan_json(plan(given.model, options), asked);
  out.set("formats", all);
  report.print(given.model, out);
  return 0;
}

}  // namespace nibble::cli
