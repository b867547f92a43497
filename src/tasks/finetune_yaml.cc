// A run described by a YAML file. The only use of yaml-cpp.
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "tasks/finetune_keys.h"

namespace nibble {
namespace {

constexpr uint64_t kMaxBytes = 1 << 20;

std::string line_of(const YAML::Node& node) { return "line " + std::to_string(node.Mark().line + 1); }

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

  /// The value in the type that a setter takes.
  void get(std::string& value) const { value = text(); }
  void get(int64_t& value) const { value = integer(); }
  void get(double& value) const { value = number(); }
  void get(bool& value) const { value = flag(); }
  void get(std::vector<std::string>& value) const { value = texts(); }
  void get(std::vector<int64_t>& value) const {
    if (node.IsScalar()) return value.push_back(integer());
    if (!node.IsSequence()) refuse("a list of integers");
    for (const YAML::Node& item : node) value.push_back(Entry{item, where}.integer());
  }
  template <class Value>
  void get(ByPattern<Value>& values) const {
    if (!node.IsMap()) refuse("a mapping of regular expressions to numbers");
    for (const auto& pair : node) {
      const std::string pattern = Entry{pair.first, where}.as<std::string>("a regular expression");
      Entry{pair.second, where + ": " + printable(pattern, 100)}.get(values.emplace_back(pattern, Value{}).second);
    }
  }
};

struct Run {
  FinetuneRequest request;
  bool four_bit = false, eight_bit = false, target_linear = false;
  std::optional<bool> use_lora = {};
  std::string adapter = {};
  std::set<std::string_view> said = {};  // keys of the table that have a value
};

/// Which keys a mapping has had so far, by what they stand for.
class Seen {
 public:
  explicit Seen(std::string where) : where_(std::move(where)) {}

  void add(std::string_view meaning, const YAML::Node& key) {
    const auto [before, is_new] = lines_.emplace(meaning, key);
    if (is_new) return;
    const YAML::Node& first = before->second;
    const std::string& name = key.Scalar();
    fail(ErrorCode::format, where_ + ": " + line_of(key) + ": " + name + ": " +
                                (first.Scalar() == name ? "is there twice" : "says the same as " + first.Scalar()) +
                                ", first in " + line_of(first));
  }

 private:
  std::string where_;
  std::map<std::string, YAML::Node, std::less<>> lines_;
};

// What forms of data are called elsewhere. Each line of the data shows its own: docs/finetuning.md.
constexpr std::string_view kDataTypes[] = {"alpaca", "sharegpt", "chat_template", "completion"};

void read_data_type(const Entry& e) {
  const std::string name = e.text();
  if (std::find(std::begin(kDataTypes), std::end(kDataTypes), name) != std::end(kDataTypes)) return;
  e.refuse("alpaca, sharegpt, chat_template or completion, or no type: each line of the data shows its form");
}

void read_datasets(const Entry& e, Run& run) {
  if (!e.node.IsSequence() || e.node.size() != 1 || !e.node[0].IsMap()) e.refuse("a list of one data set with a path");
  const std::string where = e.where + "[0]";
  Seen seen(where);
  std::string path;
  for (const auto& pair : e.node[0]) {
    const YAML::Node &key = pair.first, &value = pair.second;
    const std::string& name = key.Scalar();
    if (name != "path" && name != "type") {
      fail(ErrorCode::format, where + ": '" + printable(name, 100) + "' is not known, expected path and type");
    }
    seen.add(name, key);
    const Entry entry = {value, where + ": " + name};
    if (name == "path") path = entry.text();
    if (name == "type" && !value.IsNull()) read_data_type(entry);
  }
  if (path.empty()) fail(ErrorCode::format, where + ": path: is missing");
  run.request.options.data = path;
}

/// "" and false stand for a key that is not there.
bool says_nothing(const YAML::Node& node) {
  if (node.IsSequence() || node.IsMap()) return node.size() == 0;
  bool flag = true;
  return node.IsScalar() && (node.Scalar().empty() || (YAML::convert<bool>::decode(node, flag) && !flag));
}

void read_adapter(const Entry& e, Run& run) {
  if (says_nothing(e.node)) return;
  const std::string name = e.text();
  if (name != "lora" && name != "qlora") e.refuse("lora or qlora");
  run.adapter = name;
}

/// Of the two words of axolotl one is a number of steps and the other is not.
void read_warmup_ratio(const Entry& e, Run& run) {
  const double share = e.number();
  if (!(share >= 0 && share < 1)) e.refuse("at least 0 and below 1: it is a share of all steps");
  run.request.options.warmup = share;
}

/// Prompts are not trained; a file that asks for it is not run as something else.
void read_train_on_inputs(const Entry& e, Run&) {
  if (e.flag()) e.refuse("false: prompts are not trained (a text is, with the key text in the data)");
}

/// A key that has no flag of its name.
struct FileKey {
  std::string_view name, meaning;  // what else says the same has the same meaning
  void (*read)(const Entry&, Run&);
  bool of_adapter = false;
};
constexpr FileKey kFileKeys[] = {
    {"adapter", "adapter", read_adapter, true},
    {"use_lora", "use_lora", [](const Entry& e, Run& r) { r.use_lora = e.flag(); }},
    {"datasets", "data", read_datasets},
    {"load_in_4bit", "load_in_4bit", [](const Entry& e, Run& r) { r.four_bit = e.flag(); }},
    {"load_in_8bit", "load_in_8bit", [](const Entry& e, Run& r) { r.eight_bit = e.flag(); }},
    {"lora_target_linear", "lora_target_linear", [](const Entry& e, Run& r) { r.target_linear = e.flag(); }, true},
    {"warmup_steps", "warmup",
     [](const Entry& e, Run& r) { r.request.options.warmup = static_cast<double>(e.integer()); }},
    {"warmup_ratio", "warmup", read_warmup_ratio},
    {"train_on_inputs", "train_on_inputs", read_train_on_inputs},
    {"shuffle", "no_shuffle", [](const Entry& e, Run& r) { r.request.options.shuffle = e.flag(); }},
    {"threads", "threads", [](const Entry& e, Run& r) { r.request.threads = e.integer(); }},
    {"base_model", "base_model", [](const Entry& e, Run& r) { r.request.base_model = e.text(); }},
};

// Keys without effect here: the command line names the output, training is in fp32 and logs every step.
constexpr std::string_view kIgnored[] = {
    "output_dir", "bf16", "fp16", "tf32", "logging_steps", "flash_attention", "dataset_prepared_path"};

/// A flag that takes the place of a key of another name.
struct Replaced {
  std::string_view flag, key;
  std::optional<std::string_view> unless = {};  // the text of the flag that goes with the key
};
constexpr Replaced kReplaced[] = {{"epochs", "steps"},
                                  {"method", "load_in_4bit", "qlora"},
                                  {"method", "load_in_8bit", "qlora"},
                                  {"method", "adapter", "qat"},
                                  {"target_modules", "lora_target_linear"}};

bool is_replaced(std::string_view key, const GivenFlags& flags) {
  return std::any_of(std::begin(kReplaced), std::end(kReplaced), [&](const Replaced& row) {
    const auto flag = flags.find(row.flag);
    return row.key == key && flag != flags.end() && flag->second != row.unless;
  });
}

bool is_called(const FinetuneKey& key, std::string_view name) {
  return !name.empty() && (key.name == name || key.aliases[0] == name || key.aliases[1] == name);
}

[[noreturn]] void refuse_unknown(const std::string& name, const std::string& where) {
  std::vector<std::string> known;
  for (const FinetuneKey& key : finetune_keys()) {
    known.emplace_back(key.name);
    for (const std::string_view alias : key.aliases) {
      if (!alias.empty()) known.emplace_back(alias);
    }
  }
  for (const FileKey& key : kFileKeys) known.emplace_back(key.name);
  const std::string nearest = nearest_name(name, known);
  fail(ErrorCode::format, where + ": '" + printable(name, 100) + "' is not known" +
                              (nearest.empty() ? "" : ", did you mean '" + nearest + "'?"));
}

/// The keys of a file, one after the other.
class Reader {
 public:
  Reader(const std::string& path, const GivenFlags& flags, Run& run)
      : path_(path), flags_(flags), run_(run), seen_(path) {}

  void read(const YAML::Node& key, const YAML::Node& value) {
    const std::string& name = key.Scalar();
    const Entry entry = {value, path_ + ": " + name};
    for (const FinetuneKey& known : finetune_keys()) {
      if (is_called(known, name)) return read_shared(known, key, entry);
    }
    for (const FileKey& known : kFileKeys) {
      if (known.name == name) return read_own(known, key, entry);
    }
    if (std::find(std::begin(kIgnored), std::end(kIgnored), name) == std::end(kIgnored)) refuse_unknown(name, path_);
  }

 private:
  void read_shared(const FinetuneKey& known, const YAML::Node& key, const Entry& entry) {
    seen_.add(known.name, key);
    if (entry.node.IsNull()) return;
    const auto read = [&]<class Value>(void (*set)(FinetuneRequest&, const Value&)) {
      Value value{};
      entry.get(value);
      if (!is_replaced(known.name, flags_)) set(run_.request, value);
    };
    std::visit(read, known.set);
    run_.said.insert(known.name);
    if (known.of_adapter && !says_nothing(entry.node)) run_.request.ask_for_adapter(key.Scalar());
  }

  void read_own(const FileKey& known, const YAML::Node& key, const Entry& entry) {
    seen_.add(known.meaning, key);
    if (entry.node.IsNull() || is_replaced(known.name, flags_)) return;
    known.read(entry, run_);
    if (known.of_adapter && !says_nothing(entry.node)) run_.request.ask_for_adapter(known.name);
  }

  const std::string& path_;
  const GivenFlags& flags_;
  Run& run_;
  Seen seen_;
};

/// The word of axolotl for lora and qlora; whole training and qat are nibble's, with an adapter or not.
void apply_adapter(Run& run, const std::string& path) {
  std::string& method = run.request.options.method;
  if (run.adapter.empty() || method == "full" || method == "qat") return;
  if (run.said.contains("method") && method != run.adapter) {
    fail(ErrorCode::format,
         path + ": method: " + printable(method, 60) + " and adapter: " + run.adapter + ": expected one of them");
  }
  method = run.adapter;
}

/// What the base of an adapter is loaded as.
struct Loading {
  bool Run::*asked;
  const char* key;
  std::vector<std::string> formats;  // the first is meant where none is named
};

/// load_in_4bit and load_in_8bit say what the base of an adapter is.
void apply_loading(Run& run, const std::string& path) {
  static const Loading kLoadings[] = {{&Run::four_bit, "load_in_4bit", {"nf4", "fp4", "int4"}},
                                      {&Run::eight_bit, "load_in_8bit", {"int8", "int8-dynamic"}}};
  if (run.four_bit && run.eight_bit) {
    fail(ErrorCode::format, path + ": load_in_4bit and load_in_8bit: both are true, expected one of them");
  }
  FinetuneOptions& o = run.request.options;
  for (const auto& [asked, key, formats] : kLoadings) {
    if (!(run.*asked)) continue;
    if (o.method == "full" || o.method == "qat") {
      fail(ErrorCode::format, path + ": method: " + o.method + " and " + key + ": true: method " + o.method +
                                  " starts from a dense model");
    }
    if (!run.said.contains("format")) o.format = formats[0];
    if (std::find(formats.begin(), formats.end(), o.format) == formats.end()) {
      fail(ErrorCode::format, path + ": " + key + ": true and format: " + printable(o.format, 60) +
                                  ": expected one of them, or a format of as many bits");
    }
    o.method = "qlora";
  }
}

void apply_target_linear(Run& run, const std::string& path) {
  if (!run.target_linear) return;
  if (run.said.contains("target_modules")) {
    fail(ErrorCode::format, path + ": lora_target_linear: true and target_modules: expected one of them");
  }
  run.request.options.lora.target_modules = "all-linear";
}

YAML::Node only_document(const std::string& text, const std::string& path) {
  const std::vector<YAML::Node> documents = YAML::LoadAll(text);
  if (documents.size() > 1) {
    fail(ErrorCode::format, path + ": " + line_of(documents[1]) + ": begins a second document (---), expected one");
  }
  if (documents.empty() || !documents[0].IsMap()) {
    fail(ErrorCode::format, path + ": expected a mapping of keys to values");
  }
  return documents[0];
}

}  // namespace

FinetuneRequest read_finetune_file(const std::string& path, const GivenFlags& flags, const FinetuneOptions& base) {
  const std::string text = read_text_file(path, kMaxBytes);
  Run run = {.request = {.options = base}};
  Reader reader(path, flags, run);
  try {
    for (const auto& pair : only_document(text, path)) reader.read(pair.first, pair.second);
  } catch (const YAML::Exception& error) {
    fail(ErrorCode::format, path + ": line " + std::to_string(error.mark.line + 1) + ": " + printable(error.msg, 400));
  }
  if (const auto method = flags.find("method"); method != flags.end()) run.request.options.method = method->second;
  apply_adapter(run, path);
  apply_loading(run, path);
  apply_target_linear(run, path);
  run.request.options.use_lora = run.use_lora.value_or(run.request.options.use_lora);
  if (run.use_lora) run.request.adapter_key = *run.use_lora ? "use_lora" : "";
  return run.request;
}

FinetuneOptions finetune_options_from_file(const std::string& path, const FinetuneOptions& base) {
  return read_finetune_file(path, {}, base).options;
}

}  // namespace nibble
