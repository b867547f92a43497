// The table of byte-level BPE pre-tokenizers by the names that GGUF files use. Names and behaviour: llama.cpp,
// src/llama-vocab.cpp; where it approximates the published tokenizer.json, the pattern here is the published one.
#include "core/error.h"
#include "text/byte_level.h"
#include "text/gguf_vocab.h"

#define NIBBLE_CONTRACTIONS R"((?i:'s|'t|'re|'ve|'m|'ll|'d))"
#define NIBBLE_SPACES R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"
#define NIBBLE_UPPER R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])"
#define NIBBLE_LOWER R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])"
#define NIBBLE_NO_WORD R"([^\r\n\p{L}\p{N}]?)"

namespace nibble {
namespace {

constexpr const char* kDigit = R"(\p{N})";
constexpr const char* kThreeDigits = "[0-9][0-9][0-9]";
constexpr const char* kLlama3 =
    NIBBLE_CONTRACTIONS "|" NIBBLE_NO_WORD R"(\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)" NIBBLE_SPACES;
constexpr const char* kQwen2 =
    NIBBLE_CONTRACTIONS "|" NIBBLE_NO_WORD R"(\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)" NIBBLE_SPACES;
constexpr const char* kQwen35 =
    NIBBLE_CONTRACTIONS "|" NIBBLE_NO_WORD R"([\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" NIBBLE_SPACES;
constexpr const char* kGpt4o = NIBBLE_NO_WORD NIBBLE_UPPER
    "*" NIBBLE_LOWER "+" NIBBLE_CONTRACTIONS "?|" NIBBLE_NO_WORD NIBBLE_UPPER "+" NIBBLE_LOWER "*" NIBBLE_CONTRACTIONS
    R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" NIBBLE_SPACES;
constexpr const char* kTekken =
    NIBBLE_NO_WORD NIBBLE_UPPER "*" NIBBLE_LOWER "+|" NIBBLE_NO_WORD NIBBLE_UPPER "+" NIBBLE_LOWER
                                R"(*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*)" NIBBLE_SPACES;
constexpr const char* kSeedCoder =
    NIBBLE_CONTRACTIONS "|" NIBBLE_NO_WORD R"(\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+)" NIBBLE_SPACES;
constexpr const char* kDeepseek3 = R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
                                   R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)" NIBBLE_SPACES;
constexpr const char* kBloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
constexpr const char* kPunctuation = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr const char* kFalconPunctuation = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr const char* kIdeographs = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+";
constexpr const char* kIdeographsAndKana = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+";

constexpr GgufPreTokenizer kTable[] = {
    {.names = " gpt-2 phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat mellum jais trillion granite-docling ",
     .patterns = {kGpt2Pattern}},
    {.names = " mpt olmo ", .patterns = {kGpt2Pattern}, .nfc = true},
    {.names = " default ", .patterns = {kPunctuation, kGpt2Pattern, R"(\p{N}+)", kThreeDigits}},
    {.names = " smollm starcoder refact command-r codeshell exaone minerva-7b mellum2 ",
     .patterns = {kDigit, kGpt2Pattern}},
    {.names = " llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 ",
     .patterns = {kLlama3},
     .ignore_merges = true,
     .adds_bos = true},
    {.names = " dbrx smaug-bpe chatglm-bpe glm4 ", .patterns = {kLlama3}},
    {.names = " qwen2 deepseek-r1-qwen stablelm2 hunyuan solar-open grok-2 ", .patterns = {kQwen2}, .nfc = true},
    {.names = " qwen35 ", .patterns = {kQwen35}, .nfc = true},
    {.names = " gpt-4o llama4 minimax-m2 ", .patterns = {kGpt4o}},
    {.names = " tekken ", .patterns = {kTekken}, .ignore_merges = true, .adds_bos = true},
    {.names = " seed-coder ", .patterns = {kSeedCoder}},
    {.names = " deepseek-coder ", .patterns = {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kIdeographs, kDigit}},
    {.names = " deepseek-v3 hunyuan-dense joyai-llm ", .patterns = {R"(\p{N}{1,3})", kIdeographsAndKana, kDeepseek3}},
    {.names = " falcon ", .patterns = {kFalconPunctuation, kGpt2Pattern, kThreeDigits}},
    {.names = " bloom poro-chat gpt3-finnish ", .patterns = {kBloom}},
    {.names = " viking ", .patterns = {kBloom, kDigit}},
};

}  // namespace

const GgufPreTokenizer& find_gguf_pre_tokenizer(std::string_view name, const std::string& where) {
  std::string known;
  for (const GgufPreTokenizer& row : kTable) {
    const bool plain = !name.empty() && name.find(' ') == name.npos;
    if (plain && row.names.find(" " + std::string(name) + " ") != row.names.npos) return row;
    known += row.names.substr(0, row.names.size() - 1);
  }
  fail(ErrorCode::unsupported,
       where + ": tokenizer.ggml.pre: unknown pre-tokenizer '" + printable(name, 100) + "'. Known:" + known);
}

}  // namespace nibble
