#include "cli/model_args.h"

#include "cli/print.h"
#include "core/error.h"
#include "core/file.h"
#include "core/limits.h"

namespace nibble::cli {

void ModelArgs::declare(Args& args) {
  args.positional("MODEL", model, "folder, .gguf file or hub id");
  args.option("--format", format, "FORMAT", "quantize while loading: nf4, fp4, int4, int8, int8-dynamic, bf16, ...");
  args.flag("--double-quant", double_quant, "with a 4-bit --format: quantize the scales too");
  args.option("--block", block, "with a 4-bit --format: weights per scale; 0 = 64");
  args.option("--compute-dtype", compute_dtype, "DTYPE",
              "4-bit formats: fp32, bf16 or fp16; default as the model says");
  args.option("--granularity", granularity, "channel|tensor", "int8-dynamic: weight scales per row, or one in all");
  args.option("--activations", activations, "token|tensor", "int8-dynamic: activation ranges per token, or per call");
  args.flag("--reduce-range", reduce_range, "int8-dynamic: 127 activation steps instead of 255, as torch on x86");
  args.flag("--quantize-head", quantize_head, "with --format: the output head or classifier too");
  args.list("--skip", skip, "NAME...", "with --format: layers to keep");
}

LoadModelOptions ModelArgs::load_options(const Common& common) const {
  if (format.empty() && (double_quant || block != 0 || !skip.empty() || quantize_head)) {
    fail(ErrorCode::invalid_argument, "--double-quant, --block, --skip and --quantize-head need --format");
  }
  LoadModelOptions options;
  options.format = format;
  options.block = block;
  options.double_quant = double_quant;
  options.skip = skip;
  options.granularity = granularity;
  options.activations = activations;
  options.reduce_range = reduce_range;
  options.quantize_head = quantize_head;
  if (compute_dtype) options.compute_dtype = parse_dtype(*compute_dtype);
  options.progress = progress_bar(common);
  return options;
}

CausalLM ModelArgs::load(const Common& common) const {
  return AutoModelForCausalLM::from_pretrained(model, load_options(common));
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
  return prompt ? *prompt : read_text_file(*prompt_file, limits::kMaxStringBytes);
}

std::vector<int32_t> PromptArgs::token_ids(const CausalLM& model) const {
  if (!ids) return model.encode(text());
  if (prompt || prompt_file) fail(ErrorCode::invalid_argument, "--ids stands instead of a text prompt");
  return parse_ids(*ids, "--ids");
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
  args.option("--kv-dtype", kv_dtype, "DTYPE", "of the cache: fp32 (default), fp16 or bf16");
}

GenerateOptions SamplingArgs::resolve() const {
  GenerateOptions out = options;
  out.seed = static_cast<uint64_t>(seed);
  out.kv_dtype = parse_dtype(kv_dtype);
  return out;
}

Json id_list(const std::vector<int32_t>& ids) {
  Json out = Json::array();
  for (const int32_t id : ids) out.push_back(int64_t{id});
  return out;
}

}  // namespace nibble::cli
