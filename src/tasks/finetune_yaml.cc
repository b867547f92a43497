// A run described by a YAML file. The only use of yaml-cpp.
#include <yaml-cpp/yaml.h>

#include <cmath>

#include "core/error.h"
#include "core/file.h"
#include "nibble/finetune.h"

namespace nibble {
namespace {

constexpr uint64_t kMaxBytes = 1 << 20;

/// One entry of a mapping: its value, and where it stands for messages.
struct Entry {
  const YAML::Node& node;
  std::string where;

  [[noreturn]] void refuse(const char* expected) const {
    const std::string found = node.IsScalar() ? "'" + printable(node.Scalar(), 60) + "'" : "a list or mapping";
    fail(ErrorCode::format, where + ": found " + found + ", expected " + expected);
  }
  template <class Value>
  Value as(const char* expected) const {
    Value value{};
    if (!node.IsScalar() || !YAML::convert<Value>::decode(node, value)) refuse(expected);
    return value;
  }
  std::string text() const { return as<std::string>("a text"); }
  int64_t integer() const { return as<int64_t>("an integer"); }
  double number() const { return as<double>("a number"); }
  bool flag() const { return as<bool>("true or false"); }
  std::vector<std::string> texts() const {
    if (node.IsScalar()) return {text()};
    if (!node.IsSequence()) refuse("a list of texts");
    std::vector<std::string> list;
    for (const YAML::Node& item : node) list.push_back(Entry{item, where}.text());
    return list;
  }
};

struct Run {
  FinetuneOptions options;
  std::optional<bool> four_bit, eight_bit, use_lora;
};

void read_datasets(const Entry& e, Run& run) {
  if (!e.node.IsSequence() || e.node.size() != 1) e.refuse("a list of one data set");
  const YAML::Node path = e.node[0]["path"];
  if (!path || !path.IsScalar()) fail(ErrorCode::format, e.where + "[0]: path: is missing");
  run.options.data = path.Scalar();
}

void read_targets(const Entry& e, Run& run) {
  if (e.node.IsSequence()) {
    run.options.lora.target_modules = e.texts();
  } else {
    run.options.lora.target_modules = e.text();
  }
}

std::string schedule_name(const std::string& name) { return name == "constant_with_warmup" ? "constant" : name; }

/// The names that optimizers have elsewhere.
std::string optimizer_name(const std::string& name) {
  if (name == "adamw_torch" || name == "adamw_torch_fused" || name == "paged_adamw_32bit") return "adamw";
  if (name == "adamw_bnb_8bit" || name == "adamw_8bit" || name == "paged_adamw_8bit") return "adamw8bit";
  return name;
}

/// "" and false stand for a key that is not there.
bool says_nothing(const YAML::Node& node) {
  if (node.IsSequence()) return node.size() == 0;
  bool flag = true;
  return node.IsScalar() && (node.Scalar().empty() || (YAML::convert<bool>::decode(node, flag) && !flag));
}

void read_adapter(const Entry& e, Run& run) {
  if (says_nothing(e.node)) return;
  const std::string name = e.text();
  if (name != "lora" && name != "qlora") e.refuse("lora or qlora");
  if (run.options.method != "qat") run.options.method = name;
}

struct Key {
  const char* name;
  const char* alias;  // axolotl's word; null = the same
  void (*read)(const Entry&, Run&);
  bool of_adapter = false;  // says that there is one, where it says anything
};

void read_target_linear(const Entry& e, Run& run) {
  if (e.flag()) run.options.lora.target_modules = "all-linear";
}

/// Prompts are not trained; a file that asks for it is not run as something else.
void read_train_on_inputs(const Entry& e, Run&) {
  if (e.flag()) e.refuse("false: prompts are not trained (a text is, with the key text in the data)");
}

// Keys without effect here: the command line names model and output, training is in fp32 and logs every step.
constexpr const char* kIgnored[] = {"base_model",      "output_dir",           "bf16", "fp16", "tf32", "logging_steps",
                                    "flash_attention", "dataset_prepared_path"};

const Key kKeys[] = {
    {"method", nullptr, [](const Entry& e, Run& r) { r.options.method = e.text(); }},
    {"adapter", nullptr, read_adapter, true},
    {"use_lora", nullptr, [](const Entry& e, Run& r) { r.use_lora = e.flag(); }},
    {"task", nullptr, [](const Entry& e, Run& r) { r.options.task = e.text(); }},
    {"data", nullptr, [](const Entry& e, Run& r) { r.options.data = e.text(); }},
    {"datasets", nullptr, read_datasets},
    {"eval_data", nullptr, [](const Entry& e, Run& r) { r.options.eval_data = e.text(); }},
    {"init_adapter", "lora_model_dir", [](const Entry& e, Run& r) { r.options.init_adapter = e.text(); }, true},
    {"load_in_4bit", nullptr, [](const Entry& e, Run& r) { r.four_bit = e.flag(); }},
    {"load_in_8bit", nullptr, [](const Entry& e, Run& r) { r.eight_bit = e.flag(); }},
    {"format", nullptr, [](const Entry& e, Run& r) { r.options.format = e.text(); }},
    {"double_quant", nullptr, [](const Entry& e, Run& r) { r.options.double_quant = e.flag(); }},
    {"block", nullptr, [](const Entry& e, Run& r) { r.options.block = e.integer(); }},
    {"granularity", nullptr, [](const Entry& e, Run& r) { r.options.granularity = e.text(); }},
    {"skip", nullptr, [](const Entry& e, Run& r) { r.options.skip = e.texts(); }},
    {"qat_activations", nullptr, [](const Entry& e, Run& r) { r.options.qat_activations = e.text(); }},
    {"merge_aware", nullptr, [](const Entry& e, Run& r) { r.options.merge_aware = e.text(); }},
    {"activations", nullptr, [](const Entry& e, Run& r) { r.options.activations = e.text(); }},
    {"compute_dtype", nullptr, [](const Entry& e, Run& r) { r.options.compute_dtype = parse_dtype(e.text()); }},
    {"lora_r", nullptr, [](const Entry& e, Run& r) { r.options.lora.r = e.integer(); }, true},
    {"lora_alpha", nullptr, [](const Entry& e, Run& r) { r.options.lora.lora_alpha = e.number(); }, true},
    {"lora_dropout", nullptr, [](const Entry& e, Run& r) { r.options.lora.lora_dropout = e.number(); }, true},
    {"target_modules", "lora_target_modules", read_targets, true},
    {"lora_target_linear", nullptr, read_target_linear, true},
    {"train_on_inputs", nullptr, read_train_on_inputs},
    {"modules_to_save", "lora_modules_to_save",
     [](const Entry& e, Run& r) { r.options.lora.modules_to_save = e.texts(); }, true},
    {"use_rslora", "peft_use_rslora", [](const Entry& e, Run& r) { r.options.lora.use_rslora = e.flag(); }, true},
    {"use_dora", "peft_use_dora", [](const Entry& e, Run& r) { r.options.lora.use_dora = e.flag(); }, true},
    {"init_lora_weights", "peft_init_lora_weights",
     [](const Entry& e, Run& r) { r.options.lora.init_lora_weights = e.text(); }, true},
    {"epochs", "num_epochs", [](const Entry& e, Run& r) { r.options.epochs = e.integer(); }},
    {"steps", "max_steps", [](const Entry& e, Run& r) { r.options.steps = e.integer(); }},
    {"batch", "micro_batch_size", [](const Entry& e, Run& r) { r.options.batch = e.integer(); }},
    {"grad_accum", "gradient_accumulation_steps", [](const Entry& e, Run& r) { r.options.grad_accum = e.integer(); }},
    {"max_length", "sequence_len", [](const Entry& e, Run& r) { r.options.max_length = e.integer(); }},
    {"packing", "sample_packing", [](const Entry& e, Run& r) { r.options.packing = e.flag(); }},
    {"shuffle", nullptr, [](const Entry& e, Run& r) { r.options.shuffle = e.flag(); }},
    {"seed", nullptr, [](const Entry& e, Run& r) { r.options.seed = static_cast<uint64_t>(e.integer()); }},
    {"gradient_checkpointing", nullptr, [](const Entry& e, Run& r) { r.options.gradient_checkpointing = e.flag(); }},
    {"optimizer", nullptr, [](const Entry& e, Run& r) { r.options.optimizer = optimizer_name(e.text()); }},
    {"learning_rate", nullptr, [](const Entry& e, Run& r) { r.options.learning_rate = e.number(); }},
    {"schedule", "lr_scheduler", [](const Entry& e, Run& r) { r.options.schedule = schedule_name(e.text()); }},
    {"warmup", "warmup_steps", [](const Entry& e, Run& r) { r.options.warmup = e.number(); }},
    {"warmup_ratio", nullptr, [](const Entry& e, Run& r) { r.options.warmup = e.number(); }},
    {"weight_decay", nullptr, [](const Entry& e, Run& r) { r.options.weight_decay = e.number(); }},
    {"beta1", "adam_beta1", [](const Entry& e, Run& r) { r.options.beta1 = e.number(); }},
    {"beta2", "adam_beta2", [](const Entry& e, Run& r) { r.options.beta2 = e.number(); }},
    {"epsilon", "adam_epsilon", [](const Entry& e, Run& r) { r.options.epsilon = e.number(); }},
    {"momentum", nullptr, [](const Entry& e, Run& r) { r.options.momentum = e.number(); }},
    {"max_grad_norm", nullptr, [](const Entry& e, Run& r) { r.options.max_grad_norm = e.number(); }},
    {"eval_every", "eval_steps", [](const Entry& e, Run& r) { r.options.eval_every = e.integer(); }},
    {"early_stopping", "early_stopping_patience",
     [](const Entry& e, Run& r) { r.options.early_stopping = e.integer(); }},
    {"save_every", "save_steps", [](const Entry& e, Run& r) { r.options.save_every = e.integer(); }},
    {"save_limit", "save_total_limit", [](const Entry& e, Run& r) { r.options.save_limit = e.integer(); }},
    {"on_nonfinite", nullptr, [](const Entry& e, Run& r) { r.options.on_nonfinite = e.text(); }},
    {"resume", "resume_from_checkpoint", [](const Entry& e, Run& r) { r.options.resume = e.text(); }},
    {"tensorboard", "use_tensorboard", [](const Entry& e, Run& r) { r.options.tensorboard = e.flag(); }},
};

void read_key(const std::string& name, const YAML::Node& value, const std::string& path, Run& run) {
  if (value.IsNull()) return;
  std::vector<std::string> known;
  for (const Key& key : kKeys) {
    if (name == key.name || (key.alias && name == key.alias)) {
      run.options.use_lora |= key.of_adapter && !says_nothing(value);
      return key.read({value, path + ": " + name}, run);
    }
    known.emplace_back(key.name);
    if (key.alias) known.emplace_back(key.alias);
  }
  for (const char* ignored : kIgnored) {
    if (name == ignored) return;
  }
  const std::string nearest = nearest_name(name, known);
  fail(ErrorCode::format, path + ": '" + printable(name, 100) + "' is not known" +
                              (nearest.empty() ? "" : ", did you mean '" + nearest + "'?"));
}

/// load_in_4bit and load_in_8bit say what the base of an adapter is.
void apply_loading(Run& run, const std::string& path) {
  if (!run.four_bit.value_or(false) && !run.eight_bit.value_or(false)) return;
  if (run.options.method == "qat") {
    fail(ErrorCode::format, path + ": load_in_4bit, load_in_8bit: method qat starts from a dense model; say format");
  }
  run.options.method = "qlora";
  run.options.format = run.eight_bit.value_or(false) ? "int8" : run.options.format;
}

}  // namespace

FinetuneOptions finetune_options_from_file(const std::string& path, const FinetuneOptions& base) {
  const std::string text = read_text_file(path, kMaxBytes);
  Run run = {.options = base, .four_bit = {}, .eight_bit = {}, .use_lora = {}};
  try {
    const YAML::Node root = YAML::Load(text);
    if (!root.IsMap()) fail(ErrorCode::format, path + ": expected a mapping of keys to values");
    for (const auto& pair : root) read_key(pair.first.Scalar(), pair.second, path, run);
  } catch (const YAML::Exception& error) {
    fail(ErrorCode::format, path + ": line " + std::to_string(error.mark.line + 1) + ": " + printable(error.msg, 400));
  }
  apply_loading(run, path);
  run.options.use_lora = run.use_lora.value_or(run.options.use_lora);
  return run.options;
}

}  // namespace nibble
