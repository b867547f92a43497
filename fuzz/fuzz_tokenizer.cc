// The input is a tokenizer.json (or, behind a leading 'S', a tokenizer.model, or behind a 'G' GGUF metadata as JSON),
// then a zero byte and a text to encode with it.
#include <string_view>

#include "core/error.h"
#include "core/json_text.h"
#include "text/gguf_vocab.h"
#include "text/sentencepiece.h"
#include "text/tokenizer.h"

namespace {

using namespace nibble;

Tokenizer tokenizer_of(std::string_view bytes) {
  const auto from = [](const Json& json) { return Tokenizer::from_json(json, Json(), "fuzz"); };
  if (bytes.starts_with('S')) return from(tokenizer_json_from_sentencepiece(bytes.substr(1), Json(), "fuzz"));
  if (bytes.starts_with('G')) return from(tokenizer_json_from_gguf(Json::parse(bytes.substr(1), "fuzz"), "fuzz"));
  return Tokenizer::from_text(JsonText::parse(bytes, "fuzz"), Json(), "fuzz");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.rfind('\0'), input.size());
  const std::string_view text = end < input.size() ? input.substr(end + 1) : "Hello, world! 123";
  try {
    const Tokenizer tokenizer = tokenizer_of(input.substr(0, end));
    const std::vector<int32_t> ids = tokenizer.encode(text);
    tokenizer.encode(text.substr(tokenizer.last_added_token(text)), {.continues = true});
    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.push(id);
    if (streamed + stream.flush() != tokenizer.decode(ids)) __builtin_trap();
  } catch (const Error&) {
  }
  return 0;
}
