#include <fmt/format.h>

#include <cstdio>

#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/print.h"
#include "core/error.h"

namespace nibble::cli {
namespace {

Json to_json(const std::vector<OperationTime>& profile) {
  Json rows = Json::array();
  for (const OperationTime& row : profile) {
    rows.push_back(
        Json::object({{"name", row.name}, {"calls", row.calls}, {"seconds", row.seconds}, {"bytes", row.bytes}}));
  }
  return rows;
}

void print_profile(const std::string& title, const std::vector<OperationTime>& profile) {
  double total = 0;
  for (const OperationTime& row : profile) total += row.seconds;
  std::vector<std::vector<std::string>> rows = {{title, "calls", "ms", "share", "weights read", "GB/s"}};
  for (const OperationTime& row : profile) {
    const double rate = static_cast<double>(row.bytes) / std::max(row.seconds, 1e-9) / 1e9;
    rows.push_back({row.name, grouped(row.calls), fixed(1000 * row.seconds, 2),
                    fixed(100 * row.seconds / std::max(total, 1e-9), 1) + " %", row.bytes ? human_bytes(row.bytes) : "",
                    row.bytes ? fixed(rate, 1) : ""});
  }
  print_line();
  print_table(rows);
}

Json to_json(const Generation& g) {
  Json out = Json::object({{"prompt_ids", id_list(g.prompt_ids)},
                           {"ids", id_list(g.ids)},
                           {"text", g.text},
                           {"finish_reason", g.finish_reason == FinishReason::stop ? "stop" : "length"},
                           {"kv_dtype", dtype_name(g.kv_dtype)},
                           {"prefill_tokens_per_second", g.prefill_tokens_per_second},
                           {"decode_tokens_per_second", g.decode_tokens_per_second},
                           {"drafted", g.drafted},
                           {"accepted", g.accepted},
                           {"tokens_per_forward", g.tokens_per_forward}});
  if (!g.decode_profile.empty()) {
    out.set("prefill_profile", to_json(g.prefill_profile));
    out.set("decode_profile", to_json(g.decode_profile));
  }
  return out;
}

/// What stands behind the text: the profiles and one line on stderr.
void print_speed(const Generation& g, const Common& common) {
  if (!g.decode_profile.empty()) {
    print_profile("prefill", g.prefill_profile);
    print_profile("decode", g.decode_profile);
  }
  if (common.quiet) return;
  note(fmt::format("{} + {} tokens, prefill {:.1f} tokens/s, decode {:.1f} tokens/s", g.prompt_ids.size(), g.ids.size(),
                   g.prefill_tokens_per_second, g.decode_tokens_per_second));
  if (g.drafted == 0) return;
  note(fmt::format("{} of {} guessed tokens were right: {:.2f} tokens per forward pass", g.accepted, g.drafted,
                   g.tokens_per_forward));
}

Generation answer(const CausalLM& model, const PromptArgs& prompt, const std::optional<std::string>& system,
                  const GenerateOptions& options) {
  std::vector<ChatMessage> messages;
  if (system) messages.push_back({"system", *system});
  messages.push_back({"user", prompt.text()});
  return model.chat(messages, options);
}

}  // namespace

int cmd_generate(const Arguments& arguments) {
  Common common;
  ModelArgs model_args;
  PromptArgs prompt;
  SamplingArgs sampling;
  std::optional<std::string> system;
  bool chat = false, profile = false;
  Args args("generate", "Continues a text, or answers a question.",
            "  nibble generate smollm2-nf4 -p \"The capital of France is\" -n 20\n"
            "  nibble generate smollm2-nf4 --chat -p \"What is a prime number?\" --temperature 0.7 --seed 1\n"
            "  nibble generate smollm2-135m --format int8 -p \"Once upon a time\"\n"
            "  nibble generate smollm2-nf4 --chat --prompt-file page.txt --prompt-lookup 10");
  model_args.declare(args);
  ModelArgs::declare_head(args, model_args.head);
  prompt.declare(args);
  sampling.declare(args);
  args.flag("--profile", profile, "say where the time goes, by operation");
  args.flag("--chat", chat, "the prompt is a user's message: use the model's chat template");
  args.option("--system", system, "TEXT", "with --chat: the system message");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  if (!prompt.given()) fail(ErrorCode::invalid_argument, "a prompt is needed: --prompt, --prompt-file or --ids");
  if (system && !chat) fail(ErrorCode::invalid_argument, "--system needs --chat");
  GenerateOptions options = sampling.resolve();
  options.profile = profile;
  const JsonReport json;
  const CausalLM model = model_args.load(common);
  const bool show_text = !common.json && model.has_tokenizer();
  if (show_text) {
    options.on_text = [](std::string_view piece) {
      print(piece);
      std::fflush(stdout);
    };
  }
  const Generation g = chat ? answer(model, prompt, system, options) : model.generate(prompt.token_ids(model), options);
  if (common.json) {
    json.print(model_args.model, to_json(g));
    return 0;
  }
  print_line(show_text ? "" : fmt::format("{}", fmt::join(g.ids, " ")));
  print_speed(g, common);
  return 0;
}

}  // namespace nibble::cli
