// nibble COMMAND ...: the table of commands, and what becomes of errors and signals.
#include <fmt/format.h>

#include <unistd.h>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/print.h"
#include "core/buffer.h"
#include "core/error.h"
#include "core/progress.h"
#include "nibble/system.h"
#include "nibble/version.h"

namespace nibble::cli {
namespace {

struct Command {
  std::string name;
  const char* summary;
  int (*run)(const Arguments&);
};

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"formats", "the formats that weights can be stored in", cmd_formats},
      {"info", "this machine: instruction sets, cores, memory", cmd_info},
      {"inspect", "what is in a model", cmd_inspect},
      {"quantize", "write a quantized copy of a model", cmd_quantize},
      {"dequantize", "write the dense model that a quantized one stands for", cmd_dequantize},
      {"merge", "one model from a base and an adapter", cmd_merge},
      {"generate", "continue a text, or answer a question", cmd_generate},
      {"chat", "a conversation in the terminal", cmd_chat},
      {"logits", "what a model predicts at each position", cmd_logits},
      {"tokenize", "text to token ids, or back", cmd_tokenize},
      {"classify", "labels for texts", cmd_classify},
      {"embed", "vectors for sentences", cmd_embed},
      {"evaluate", "perplexity or accuracy, and what was lost against the original", cmd_evaluate},
      {"bench", "size, speed, memory and accuracy of every format on this machine", cmd_bench},
      {"finetune", "train a model or an adapter of it: LoRA, QLoRA, full", cmd_finetune},
      {"plan", "the memory a model takes, and whether it fits", cmd_plan},
      {"recommend", "which configuration to use, and why", cmd_recommend},
  };
  return table;
}

void print_help() {
  print_line("nibble makes transformer models smaller and faster, and says what was lost.\n");
  print_line("usage: nibble COMMAND [arguments]\n\ncommands:");
  for (const Command& command : commands()) print_line(fmt::format("  {:<12}{}", command.name, command.summary));
  print_line("\nMODEL is a Hugging Face folder, a .gguf file, or the id of a model in the local hub cache.");
  print_line("'nibble COMMAND --help' or 'nibble help COMMAND' explains a command and shows examples.");
}

int exit_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid_argument: return 2;
    case ErrorCode::io:
    case ErrorCode::format: return 3;
    case ErrorCode::unsupported: return 4;
    case ErrorCode::resources: return 5;
    case ErrorCode::exists: return 6;
    case ErrorCode::interrupted: return 130;
    case ErrorCode::internal: return 1;
  }
  return 1;
}

/// found_out: members of the JSON object besides the error.
int report(ErrorCode code, const std::string& message, const Arguments& arguments, Json found_out = Json::object()) {
  std::fflush(stdout);
  note("nibble: error: " + message);
  for (const std::string& argument : arguments) {
    if (argument != "--json") continue;
    const Json error = Json::object({{"code", std::string(error_code_name(code))}, {"message", message}});
    found_out.set("error", error);
    print_line(found_out.dump());
  }
  return exit_status(code);
}

int run_command(const std::string& name, const Arguments& arguments) {
  std::vector<std::string> names;
  for (const Command& command : commands()) {
    if (command.name == name) return command.run(arguments);
    names.push_back(command.name);
  }
  const std::string nearest = nearest_name(name, names);
  fail(ErrorCode::invalid_argument, "unknown command '" + name + "'" +
                                        (nearest.empty() ? "" : ", did you mean '" + nearest + "'?") +
                                        " (see 'nibble --help')");
}

int run(const Arguments& all) {
  if (all.size() > 1 && all[0] == "help") return run({all[1], "--help"});
  if (all.empty() || all[0] == "--help" || all[0] == "-h" || all[0] == "help") {
    print_help();
    return all.empty() ? 2 : 0;
  }
  if (all[0] == "--version") {
    print_line(std::string("nibble ") + version());
    return 0;
  }
  const Arguments arguments(all.begin() + 1, all.end());
  try {
    system_info();  // an unusable NIBBLE_ISA stops every command
    return run_command(all[0], arguments);
  } catch (const ReportedError& error) {
    return report(error.code(), error.what(), arguments, error.report);
  } catch (const Error& error) {
    return report(error.code(), error.what(), arguments);
  } catch (const std::bad_alloc&) {
    return report(ErrorCode::resources, "out of memory", arguments);
  } catch (const std::exception& error) {
    return report(ErrorCode::internal, error.what(), arguments);
  }
}

// The first signal asks the work to stop cleanly; a second one, before it has, does not wait for it.
void on_signal(int) {
  if (interrupt_requested()) _exit(130);
  request_interrupt();
}

// Reading a mapped file that became shorter. Only calls that are safe in a handler.
void on_bus_error(int, siginfo_t* info, void*) {
  const auto say = [](const char* text) {
    if (write(STDERR_FILENO, text, std::strlen(text)) < 0) _exit(3);
  };
  const char* file = mapped_file_at(info->si_addr);
  say("nibble: error: ");
  say(file ? file : "a mapped file");
  say(": became shorter while it was in use\n");
  _exit(3);
}

void install_handlers() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is then an ordinary write error
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace
}  // namespace nibble::cli

int main(int argc, char** argv) {
  nibble::cli::install_handlers();
  const int status = nibble::cli::run(nibble::cli::Arguments(argv + 1, argv + argc));
  if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && status == 0) {
    nibble::cli::note("nibble: error: standard output cannot be written");
    return 1;
  }
  return status;
}
