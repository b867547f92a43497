#include "cli/model_args.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "cli/print.h"
#include "core/error.h"
#include "core/limits.h"
#include "io/model_files.h"
#include "text/text_file.h"

namespace nibble::cli {

void ModelArgs::declare(Args& args) {
  args.positional("MODEL", model, "folder, .gguf file or hub id");
  args.option("--format", format, "FORMAT", "quantize while loading: nf4, fp4, int4, int8, int8-dynamic, bf16, ...");
  args.flag("--double-quant", double_quant, "with a 4-bit --format: quantize the scales too");
  args.option("--block", block, "with a 4-bit --format: weights per scale; 0 = 64");
  args.option("--compute-dtype", compute_dtype, "DTYPE",
              "4-bit formats: fp32, bf16 or fp16; default as the model says");
  args.option("--granularity", granularity, "channel|tensor", "int8-dynamic: weight scales per row, or one in all");
  args.option("--activations", activations, "int8|int16|fp32", "4-bit formats, GGUF: what weights are multiplied with");
  args.option("--activation-range", activation_range, "token|tensor",
              "int8-dynamic: activation ranges per token, or per call");
  args.flag("--reduce-range", reduce_range, "int8-dynamic: 127 activation steps instead of 255, as torch on x86");
  args.flag("--quantize-head", quantize_head, "with --format: the output head or classifier too");
  args.list("--skip", skip, "NAME...", "with --format: layers to keep");
  args.repeated("--adapter", adapters, "DIR", "a PEFT adapter folder to use; may be repeated, their changes add up");
  args.option("--device-map", device_map, "auto|cpu|disk",
              "layers in memory as far as they fit, the others mapped from the file; or all in one place");
  args.option("--max-memory", max_memory, "cpu=SIZE",
              "with auto: memory for weights; default 90 % of what is available");
}

void ModelArgs::declare_head(Args& args, std::string& head) {
  args.option("--head", head, "keep|nf4|int8", "what the output head is multiplied as; nothing is stored");
}

namespace {

uint64_t parse_max_memory(const std::string& text) {
  constexpr std::string_view kDevice = "cpu=";
  if (!text.starts_with(kDevice)) {
    fail(ErrorCode::invalid_argument, "--max-memory: found '" + text + "', expected cpu=SIZE such as cpu=6GB");
  }
  return parse_size(text.substr(kDevice.size()), "--max-memory");
}

/// An option of how weights are multiplied, and the formats whose products know it.
struct ProductOption {
  const char* name;
  bool given;
  bool Format::*choice;
  const char* of;
};

/// The formats that a model has, and those it gets while loading. --head int8 leaves the activations as they are.
std::set<std::string> formats_of(const ModelArgs& args) {
  std::set<std::string> formats;
  for (const SourceTensor& tensor : open_model(args.model).weights->tensors()) formats.insert(tensor.format);
  if (!args.format.empty()) formats.insert(args.format);
  if (args.head == "nf4") formats.insert(args.head);
  return formats;
}

}  // namespace

void ModelArgs::refuse_idle_options() const {
  constexpr const char *kPacked = "4-bit formats and GGUF's block types", *kDynamic = "int8-dynamic";
  const ProductOption options[] = {
      {"--activations", activations.has_value(), &Format::activations_choice, kPacked},
      {"--compute-dtype", compute_dtype.has_value(), &Format::activations_choice, kPacked},
      {"--activation-range", activation_range.has_value(), &Format::range_choice, kDynamic},
      {"--reduce-range", reduce_range, &Format::range_choice, kDynamic},
  };
  const auto is_given = [](const ProductOption& option) { return option.given; };
  if (std::none_of(std::begin(options), std::end(options), is_given)) return;
  const std::set<std::string> formats = formats_of(*this);
  for (const ProductOption& option : options) {
    const auto has_choice = [&](const std::string& name) {
      const Format* format = find_format_or_null(name);
      return format != nullptr && format->*option.choice;
    };
    if (!option.given || std::any_of(formats.begin(), formats.end(), has_choice)) continue;
    fail(ErrorCode::invalid_argument, fmt::format("{} has no meaning for {}, which is {}: it is for {}", option.name,
                                                  model, fmt::join(formats, " and "), option.of));
  }
}

LoadModelOptions ModelArgs::load_options(const Common& common) const {
  if (format.empty() && (double_quant || block != 0 || !skip.empty() || quantize_head || granularity != "channel")) {
    fail(ErrorCode::invalid_argument,
         "--double-quant, --block, --skip, --quantize-head and --granularity need --format");
  }
  refuse_idle_options();
  LoadModelOptions options;
  options.format = format;
  options.block = block;
  options.double_quant = double_quant;
  options.skip = skip;
  options.granularity = granularity;
  options.activations = activations.value_or(default_activations);
  options.activation_range = activation_range.value_or(options.activation_range);
  options.reduce_range = reduce_range;
  options.quantize_head = quantize_head;
  options.head = head;
  options.adapters = adapters;
  if (device_map) options.device_map = *device_map;
  if (max_memory) options.max_memory["cpu"] = parse_max_memory(*max_memory);
  if (compute_dtype) options.compute_dtype = parse_dtype(*compute_dtype);
  options.progress = progress_bar(common);
  return options;
}

void ModelArgs::note_placement(const DeviceMap& map, const Common& common) const {
  uint64_t in_memory = 0, mapped = 0;
  for (const LayerPlacement& placed : map) (placed.device == "cpu" ? in_memory : mapped) += placed.bytes;
  if (common.quiet || (mapped == 0 && !device_map && !max_memory)) return;
  // Neighbours on the same device share a line: "cpu   model.embed_tokens to model.layers.11   412.0 MiB".
  for (size_t begin = 0, end = 0; begin < map.size(); begin = end) {
    uint64_t bytes = 0;
    for (; end < map.size() && map[end].device == map[begin].device; ++end) bytes += map[end].bytes;
    const std::string to = end - begin > 1 ? " to " + map[end - 1].layer : "";
    note(fmt::format("{:5} {}{} ({})", map[begin].device, map[begin].layer, to, human_bytes(bytes)));
  }
  if (mapped > 0) {
    note(fmt::format("{} of {} of weights stay in their file and are read from there for every pass: this is slow",
                     human_bytes(mapped), human_bytes(in_memory + mapped)));
  }
}

void PromptArgs::declare(Args& args) {
  args.option("-p,--prompt", prompt, "TEXT", "the prompt");
  args.option("--prompt-file", prompt_file, "FILE", "read the prompt from a file");
  args.option("--ids", ids, "1,2,3", "token ids instead of text");
}

std::string PromptArgs::text() const {
  if (prompt.has_value() == prompt_file.has_value()) {
    fail(ErrorCode::invalid_argument, "give the prompt with either --prompt or --prompt-file");
  }
  return prompt ? *prompt : read_utf8_file(*prompt_file, limits::kMaxStringBytes);
}

std::vector<int32_t> PromptArgs::token_ids(const CausalLM& model) const {
  if (!ids) return model.encode(text());
  if (prompt || prompt_file) fail(ErrorCode::invalid_argument, "--ids stands instead of a text prompt");
  return parse_ids(*ids, "--ids");
}

std::optional<DType> parse_kv_dtype(const std::string& name) {
  if (name == "auto") return std::nullopt;
  for (const char* known : {"fp32", "fp16", "bf16", "int8"}) {
    if (name == known) return parse_dtype(name);
  }
  fail(ErrorCode::invalid_argument, "kv_dtype: found " + name + ", expected auto, fp32, fp16, bf16 or int8");
}

void SamplingArgs::declare(Args& args) {
  args.option("-n,--max-tokens", options.max_tokens, "tokens to generate at most");
  args.option("--context", options.context, "positions to reserve; 0 = as many as needed");
  args.option("--temperature", options.temperature, "0 = always the likeliest token");
  args.option("--top-k", options.top_k, "keep the K likeliest; 0 = all");
  args.option("--top-p", options.top_p, "keep the likeliest that together reach P");
  args.option("--min-p", options.min_p, "keep those at least P times as likely as the likeliest");
  args.option("--repeat-penalty", options.repeat_penalty, "above 1: what was said becomes less likely");
  args.repeated("--stop", options.stop, "TEXT", "stop before this text; may be repeated");
  args.option("--seed", seed, "of the random choices");
  args.option("--prompt-lookup", options.prompt_lookup,
              "guess up to N tokens from the text so far and check them in one pass; the text is the same");
  args.option("--kv-dtype", kv_dtype, "DTYPE",
              "of the cache: fp32, fp16, bf16 or int8; default auto: fp16 with quantized layers, else fp32");
}

GenerateOptions SamplingArgs::resolve() const {
  GenerateOptions out = options;
  out.seed = static_cast<uint64_t>(seed);
  out.kv_dtype = parse_kv_dtype(kv_dtype);
  return out;
}

Json id_list(const std::vector<int32_t>& ids) {
  Json out = Json::array();
  for (const int32_t id : ids) out.push_back(int64_t{id});
  return out;
}

}  // namespace nibble::cli
