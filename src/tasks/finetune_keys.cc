#include "tasks/finetune_keys.h"

#include <algorithm>
#include <filesystem>

#include "core/error.h"
#include "io/model_files.h"

namespace nibble {
namespace {

template <class Owner, class Value>
Value value_of(Value Owner::*);
template <class Owner, class Value>
Value value_of(std::optional<Value> Owner::*);
template <auto kMember>
using ValueOf = decltype(value_of(kMember));

template <auto kMember>
void option(FinetuneRequest& r, const ValueOf<kMember>& value) {
  r.options.*kMember = value;
}

template <auto kMember>
void lora(FinetuneRequest& r, const ValueOf<kMember>& value) {
  r.options.lora.*kMember = value;
}

using O = FinetuneOptions;
using L = LoraConfig;

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

template <ModuleChoice L::*kChoice>
void choose(FinetuneRequest& r, const std::vector<std::string>& given) {
  r.options.lora.*kChoice = module_choice(given);
}

/// The names that optimizers have elsewhere.
void set_optimizer(FinetuneRequest& r, const std::string& name) {
  struct Row {
    std::string_view elsewhere, name;
  };
  static constexpr Row kRows[] = {{"adamw_torch", "adamw"},       {"adamw_torch_fused", "adamw"},
                                  {"paged_adamw_32bit", "adamw"}, {"adamw_bnb_8bit", "adamw8bit"},
                                  {"adamw_8bit", "adamw8bit"},    {"paged_adamw_8bit", "adamw8bit"}};
  const auto* row = std::find_if(std::begin(kRows), std::end(kRows), [&](const Row& x) { return x.elsewhere == name; });
  r.options.optimizer = row == std::end(kRows) ? name : row->name;
}

void set_schedule(FinetuneRequest& r, const std::string& name) {
  r.options.schedule = name == "constant_with_warmup" ? "constant" : name;
}

void set_compute_dtype(FinetuneRequest& r, const std::string& name) { r.options.compute_dtype = parse_dtype(name); }
void set_no_shuffle(FinetuneRequest& r, const bool& value) { r.options.shuffle = !value; }
void set_seed(FinetuneRequest& r, const int64_t& value) { r.options.seed = static_cast<uint64_t>(value); }
void set_report(FinetuneRequest& r, const std::string& file) { r.report = file; }

const FinetuneKey kKeys[] = {
    {"data", "FILE", "what to train on: .jsonl, .txt; for classifiers .tsv and .csv too", option<&O::data>},
    {"eval_data", "FILE", "measure the loss on it, and keep the best result in OUT/best", option<&O::eval_data>},
    {"method", "METHOD", "lora (default), qlora, full or qat", option<&O::method>},
    {"task", "TASK", "causal_lm or seq_cls; default what the model is", option<&O::task>},

    {"lora_r", "", "rank of the adapter; default 16", lora<&L::r>, {}, true},
    {"lora_alpha", "", "its scale is alpha / r; default 32", lora<&L::lora_alpha>, {}, true},
    {"lora_dropout", "", "share of its inputs that are dropped; default 0", lora<&L::lora_dropout>, {}, true},
    {"target_modules",
     "NAME...",
     "layers that get one: names or their ends, a regular expression, or all-linear (default)",
     choose<&L::target_modules>,
     {"lora_target_modules"},
     true},
    {"exclude_modules",
     "NAME...",
     "of these layers none: names or their ends, or a regular expression",
     choose<&L::exclude_modules>,
     {},
     true},
    {"layers_to_transform",
     "N...",
     "only in the layers with these numbers",
     lora<&L::layers_to_transform>,
     {"peft_layers_to_transform"},
     true},
    {"layers_pattern",
     "NAME...",
     "what stands before the number of a layer; default anything",
     lora<&L::layers_pattern>,
     {"peft_layers_pattern"},
     true},
    {"rank_pattern",
     "REGEX=R...",
     "other ranks for layers whose names, or their ends, match",
     lora<&L::rank_pattern>,
     {},
     true},
    {"alpha_pattern", "REGEX=ALPHA...", "other alphas, likewise", lora<&L::alpha_pattern>, {}, true},
    {"modules_to_save",
     "NAME...",
     "modules that are trained whole",
     lora<&L::modules_to_save>,
     {"lora_modules_to_save"},
     true},
    {"bias", "none|all|lora_only", "biases that are trained too; default none", lora<&L::bias>, {}, true},
    {"rslora", "", "scale alpha / sqrt(r)", lora<&L::use_rslora>, {"use_rslora", "peft_use_rslora"}, true},
    {"dora", "", "train the lengths of the rows too (DoRA)", lora<&L::use_dora>, {"use_dora", "peft_use_dora"}, true},
    {"init",
     "NAME",
     "how it begins: true (default), gaussian, pissa, pissa_niter_N; qlora: loftq",
     lora<&L::init_lora_weights>,
     {"init_lora_weights", "peft_init_lora_weights"},
     true},
    {"init_adapter",
     "DIR",
     "start from an adapter's tensors and configuration",
     option<&O::init_adapter>,
     {"lora_model_dir"},
     true},

    {"format", "FORMAT",
     "qlora: what a dense base is quantized to; qat: what the result is; nf4 (default), fp4, int4, int8, "
     "int8-dynamic",
     option<&O::format>},
    {"double_quant", "", "quantize the scales of a 4-bit format too", option<&O::double_quant>},
    {"block", "", "weights per scale of a 4-bit format; 0 = 64", option<&O::block>},
    {"granularity", "channel|tensor", "int8-dynamic: one scale per row, or one in all", option<&O::granularity>},
    {"skip", "NAME...", "layers that are not quantized: full name, dotted prefix or suffix", option<&O::skip>},
    {"qat_activations", "dynamic|observed",
     "qat to int8-dynamic: the range of each token (default), or a fixed one that training observes",
     option<&O::qat_activations>},
    {"merge_aware", "FORMAT",
     "lora, qlora: train through the rounding of a merge into this format, so that merge keeps the gain",
     option<&O::merge_aware>},
    {"activations", "int16|fp32",
     "what weights that do not learn are multiplied in; int16 is faster with AVX-512 and AVX-VNNI; default fp32",
     option<&O::activations>},
    {"compute_dtype", "DTYPE",
     "4-bit formats, of evaluation, and of training with qat; else training multiplies in fp32", set_compute_dtype},

    {"learning_rate", "", "default 2e-4 for adapters, 2e-5 without", option<&O::learning_rate>},
    {"schedule", "NAME", "linear (default), cosine or constant", set_schedule, {"lr_scheduler"}},
    {"warmup", "", "steps in which the rate rises from 0; below 1: a share of all steps", option<&O::warmup>},
    {"epochs", "", "times through the data; default 1", option<&O::epochs>, {"num_epochs"}},
    {"steps", "", "steps of the optimizer, instead of epochs", option<&O::steps>, {"max_steps"}},
    {"batch", "", "samples that go through the model together; default 1", option<&O::batch>, {"micro_batch_size"}},
    {"grad_accum", "", "batches in a step; default 1", option<&O::grad_accum>, {"gradient_accumulation_steps"}},
    {"max_length",
     "",
     "tokens of a sample; longer ones lose their ends; default 1024",
     option<&O::max_length>,
     {"sequence_len"}},
    {"packing",
     "",
     "put samples into rows of --max-length tokens; they do not see each other",
     option<&O::packing>,
     {"sample_packing"}},
    {"no_shuffle", "", "in the order of the file", set_no_shuffle},
    {"seed", "", "of the first values, the order and the dropout; default 0", set_seed},
    {"optimizer", "NAME", "adamw (default), adamw8bit or sgd", set_optimizer},
    {"weight_decay", "", "default 0", option<&O::weight_decay>},
    {"beta1", "", "of adamw; default 0.9", option<&O::beta1>, {"adam_beta1"}},
    {"beta2", "", "of adamw; default 0.999", option<&O::beta2>, {"adam_beta2"}},
    {"epsilon", "", "of adamw; default 1e-8", option<&O::epsilon>, {"adam_epsilon"}},
    {"momentum", "", "of sgd; default 0", option<&O::momentum>},
    {"max_grad_norm", "", "longer gradients are scaled down to it; 0 = never; default 1", option<&O::max_grad_norm>},
    {"gradient_checkpointing", "", "less memory for a third more work; the same results",
     option<&O::gradient_checkpointing>},
    {"on_nonfinite", "stop|skip", "a loss or gradient that is not finite: stop (default)", option<&O::on_nonfinite>},

    {"eval_every", "", "steps between evaluations; default an epoch", option<&O::eval_every>, {"eval_steps"}},
    {"early_stopping",
     "",
     "stop after so many evaluations without a better loss",
     option<&O::early_stopping>,
     {"early_stopping_patience"}},
    {"save_every", "", "steps between checkpoints", option<&O::save_every>, {"save_steps"}},
    {"save_limit", "", "checkpoints to keep; default all", option<&O::save_limit>, {"save_total_limit"}},
    {.name = "resume",
     .type = "CHECKPOINT",
     .help = "continue from the newest checkpoint in OUT, or this one",
     .set = option<&O::resume>,
     .aliases = {"resume_from_checkpoint"},
     .alone = "last"},
    {"tensorboard", "", "also write an event file for TensorBoard", option<&O::tensorboard>, {"use_tensorboard"}},
    {"report", "FILE.html", "write a page with plots of the run, after --resume of all of it", set_report},
    {"overwrite", "", "replace an existing output", option<&O::overwrite>},
};

}  // namespace

std::span<const FinetuneKey> finetune_keys() { return kKeys; }

void refuse_unused_adapter(const FinetuneRequest& request) {
  if (request.options.method != "full" || request.adapter_key.empty()) return;
  fail(ErrorCode::invalid_argument,
       request.adapter_key + ": method full trains no adapter; leave it out, or take " + "method lora");
}

namespace {

bool is_same_model(const std::string& a, const std::string& b) {
  if (a == b) return true;
  try {
    return std::filesystem::weakly_canonical(find_model(a)) == std::filesystem::weakly_canonical(find_model(b));
  } catch (const Error&) {
    return false;  // one of them is not here
  }
}

}  // namespace

void refuse_other_base(const FinetuneRequest& request, const std::string& model) {
  if (request.base_model.empty() || is_same_model(request.base_model, model)) return;
  fail(ErrorCode::invalid_argument, "base_model: found '" + printable(request.base_model, 200) +
                                        "', but the model is '" + printable(model, 200) +
                                        "'; leave it out, or let both name the same");
}

}  // namespace nibble
