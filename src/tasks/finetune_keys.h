#pragma once
// All that a run can be told by name: one table for the flags of the command and for the keys of --config.
#include <array>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "nibble/finetune.h"

namespace nibble {

/// What flags and a file ask for.
struct FinetuneRequest {
  FinetuneOptions options = {};
  std::string report = {};       // a page of the run, which the program writes
  int64_t threads = 0;           // of the program; 0 = nothing said
  std::string adapter_key = {};  // the first key that asks for an adapter
  std::string base_model = {};   // what a file calls the model; the program's has to be the same

  void ask_for_adapter(std::string_view key) {
    options.use_lora = true;
    if (adapter_key.empty()) adapter_key = key;
  }
};

using SetText = void (*)(FinetuneRequest&, const std::string&);
using SetInteger = void (*)(FinetuneRequest&, const int64_t&);
using SetNumber = void (*)(FinetuneRequest&, const double&);
using SetFlag = void (*)(FinetuneRequest&, const bool&);
using SetTexts = void (*)(FinetuneRequest&, const std::vector<std::string>&);
using SetIntegers = void (*)(FinetuneRequest&, const std::vector<int64_t>&);
/// Values by regular expressions: REGEX=VALUE as flags, a mapping in files.
template <class Value>
using ByPattern = std::vector<std::pair<std::string, Value>>;
using SetIntegersByPattern = void (*)(FinetuneRequest&, const ByPattern<int64_t>&);
using SetNumbersByPattern = void (*)(FinetuneRequest&, const ByPattern<double>&);

struct FinetuneKey {
  std::string_view name;  // in files; the flag has dashes
  std::string_view type;  // of texts, as the help shows it
  std::string_view help;
  std::variant<SetText, SetInteger, SetNumber, SetFlag, SetTexts, SetIntegers, SetIntegersByPattern,
               SetNumbersByPattern>
      set;
  std::array<std::string_view, 2> aliases = {};  // in files: axolotl's and PEFT's words
  bool of_adapter = false;                       // says that there is one, where it says anything
  std::string_view alone = {};                   // the value of a flag that may stand without one
};

std::span<const FinetuneKey> finetune_keys();

/// Names of flags that are given, with their texts.
using GivenFlags = std::map<std::string_view, std::string>;

/// A file over the defaults. Keys that flags replace, such as steps where epochs are given, are left out; the flags
/// themselves are for the caller to apply. @throws Error{format} as finetune_options_from_file().
FinetuneRequest read_finetune_file(const std::string& path, const GivenFlags& flags, const FinetuneOptions& base = {});

/// @throws Error{invalid_argument} naming the key of an adapter that the method has no use for.
void refuse_unused_adapter(const FinetuneRequest& request);

/// @throws Error{invalid_argument} when the file names another model: another text that is not the same path either.
void refuse_other_base(const FinetuneRequest& request, const std::string& model);

}  // namespace nibble
