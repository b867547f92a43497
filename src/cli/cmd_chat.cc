#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/print.h"
#include "core/error.h"

namespace nibble::cli {
namespace {

constexpr const char* kHelp = "/reset forgets the conversation, /system TEXT sets the system message, /exit ends";

class Conversation {
 public:
  explicit Conversation(std::optional<std::string> system) : system_(std::move(system)) { reset(); }

  /// @returns false for /exit
  bool command(const std::string& line) {
    if (line == "/exit" || line == "/quit") return false;
    if (line == "/reset") {
      reset();
    } else if (line.starts_with("/system ")) {
      system_ = line.substr(8);
      reset();
    } else {
      note(kHelp);
    }
    return true;
  }

  std::vector<ChatMessage>& messages() { return messages_; }

 private:
  void reset() {
    messages_.clear();
    if (system_) messages_.push_back({"system", *system_});
  }

  std::optional<std::string> system_;
  std::vector<ChatMessage> messages_;
};

/// Ctrl-C stops the answer, not the conversation: what was said so far stays in it.
void answer(const CausalLM& model, Conversation& conversation, GenerateOptions options) {
  std::string said;
  options.on_text = [&](std::string_view piece) {
    said += piece;
    print(piece);
    std::fflush(stdout);
  };
  try {
    model.chat(conversation.messages(), options);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::interrupted) throw;
    clear_interrupt();
  }
  print_line();
  conversation.messages().push_back({"assistant", said});
}

}  // namespace

int cmd_chat(const Arguments& arguments) {
  Common common;
  ModelArgs model_args;
  SamplingArgs sampling;
  sampling.options.max_tokens = 512;
  std::optional<std::string> system;
  Args args("chat", "A conversation in the terminal.",
            "  nibble chat smollm2-nf4\n  nibble chat smollm2-nf4 --system \"Answer briefly.\" --temperature 0.7\n"
            "  inside: " +
                std::string(kHelp));
  model_args.declare(args);
  ModelArgs::declare_head(args, model_args.head);
  sampling.declare(args);
  args.option("--system", system, "TEXT", "the system message");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  if (common.json) fail(ErrorCode::invalid_argument, "--json: a conversation has no JSON form; use generate");
  const GenerateOptions options = sampling.resolve();
  const CausalLM model = model_args.load(common);
  Conversation conversation(system);
  const bool terminal = isatty(fileno(stdin)) != 0;
  if (terminal) note(kHelp);
  std::string line;
  while (true) {
    if (terminal) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    if (line[0] == '/') {
      if (!conversation.command(line)) break;
      continue;
    }
    clear_interrupt();  // of a Ctrl-C while there was no answer to stop
    conversation.messages().push_back({"user", line});
    answer(model, conversation, options);
  }
  return 0;
}

}  // namespace nibble::cli
