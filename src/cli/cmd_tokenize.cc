#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/print.h"
#include "core/error.h"
#include "tasks/loaded_model.h"

namespace nibble::cli {

int cmd_tokenize(const Arguments& arguments) {
  Common common;
  std::string model;
  std::optional<std::string> text, decode;
  bool no_special = false;
  Args args(
      "tokenize", "Text to token ids, or back.",
      "  nibble tokenize smollm2-135m \"Hello, world!\"\n  nibble tokenize smollm2-135m --decode 19556,28,905,17");
  args.positional("MODEL", model, "folder, .gguf file or hub id");
  args.positional("TEXT", text, "the text");
  args.option("--decode", decode, "1,2,3", "ids to turn into text");
  args.flag("--no-special", no_special, "add no special tokens (with --decode: leave them out)");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  if (decode && text) fail(ErrorCode::invalid_argument, "--decode stands instead of TEXT");
  if (!decode && !text) fail(ErrorCode::invalid_argument, "something to tokenize is needed: TEXT or --decode");
  const JsonReport json;
  const Tokenizer tokenizer = load_tokenizer(model);
  const std::vector<int32_t> ids =
      decode ? parse_ids(*decode, "--decode") : tokenizer.encode(*text, {.add_special_tokens = !no_special});
  Json pieces = Json::array();
  std::vector<std::string> words;
  for (const int32_t id : ids) {
    words.push_back(tokenizer.piece(id));
    pieces.push_back(words.back());
  }
  const std::string decoded = tokenizer.decode(ids, {.skip_special_tokens = decode && no_special});
  if (common.json) {
    json.print(model, Json::object({{"ids", id_list(ids)}, {"pieces", pieces}, {"text", decoded}}));
  } else if (decode) {
    print_line(decoded);
  } else {
    for (size_t i = 0; i < ids.size(); ++i) print_line(fmt::format("{:>7}  {}", ids[i], Json(words[i]).dump()));
  }
  return 0;
}

}  // namespace nibble::cli
