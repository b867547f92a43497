#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace nibble {

/// Modules of a model, as PEFT lets users name them: a list of names, each a whole module name or its end behind a dot;
/// or one text, a regular expression over whole names, where "all-linear" is every Linear layer but the output head.
struct ModuleChoice {
  std::vector<std::string> names = {};
  std::string pattern = {};

  ModuleChoice() = default;
  ModuleChoice(const char* text) : pattern(text) {}
  ModuleChoice(std::string text) : pattern(std::move(text)) {}
  ModuleChoice(std::vector<std::string> list) : names(std::move(list)) {}
  ModuleChoice(std::initializer_list<std::string> list) : names(list) {}

  bool empty() const { return names.empty() && pattern.empty(); }
  bool operator==(const ModuleChoice&) const = default;
};

/// A low-rank adapter (LoRA, arXiv 2106.09685), with PEFT's names and defaults.
struct LoraConfig {
  int64_t r = 8;
  double lora_alpha = 8;              ///< the delta is lora_alpha / r * B A
  double lora_dropout = 0;            ///< share of the inputs of A that training drops
  ModuleChoice target_modules = {};   ///< empty = PEFT's choice for the architecture, mostly the query and value layers
  ModuleChoice exclude_modules = {};  ///< not these
  std::vector<std::string> modules_to_save = {};  ///< trained whole and kept with the adapter
  /// Other ranks and alphas for some modules: a regular expression for the end of the name, and the value.
  std::vector<std::pair<std::string, int64_t>> rank_pattern = {};
  std::vector<std::pair<std::string, double>> alpha_pattern = {};
  bool use_rslora = false;    ///< lora_alpha / sqrt(r) instead
  bool use_dora = false;      ///< also trains the length of every row (DoRA, arXiv 2402.09353)
  bool lora_bias = false;     ///< B has a bias; can be loaded, not trained
  std::string bias = "none";  ///< biases that are trained too: "none", "all" or "lora_only"
  /// How A and B begin. "true": A uniform, B zero; "gaussian": A normal, B zero; "false": both random.
  /// "pissa" (arXiv 2404.02948): the largest singular values of a dense weight, which is trained less them; with
  /// "pissa_niter_N" as N iterations of a random subspace find them. "loftq" (arXiv 2310.08659): those of what
  /// quantization has taken from a weight.
  std::string init_lora_weights = "true";
  std::vector<int64_t> layers_to_transform = {};  ///< indexes of layers; empty = all
  std::vector<std::string> layers_pattern =
      {};                       ///< regular expressions for what stands before the index in names; empty = anything
  bool fan_in_fan_out = false;  ///< the files hold the matrices as [in, out]: GPT-2
  std::string task_type = {};   ///< "CAUSAL_LM", "SEQ_CLS", ...; empty = none
  std::string base_model_name_or_path = {};
};

}  // namespace nibble
