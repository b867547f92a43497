// Generation with the bundled model: the text, where it ends, and how it is handed out.
#include "nibble/generate.h"

#include <gtest/gtest.h>

#include "nibble/system.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr const char* kPrompt = "Captain Wentworth was";
// What follows greedily (expected.json); 24 tokens.
constexpr const char* kGreedyText = " in the country, and then, and then, in the world, and";

struct Streamed {
  Generation result;
  std::vector<std::string> pieces;
  std::string joined;
};

Streamed stream(const CausalLM& model, GenerateOptions options) {
  Streamed s;
  options.on_text = [&](std::string_view piece) {
    s.pieces.emplace_back(piece);
    s.joined += piece;
  };
  s.result = model.generate(kPrompt, options);
  return s;
}

/// True when no piece begins or ends inside a UTF-8 character.
bool whole_characters(const std::vector<std::string>& pieces) {
  for (const std::string& piece : pieces) {
    size_t at = 0;
    while (at < piece.size()) {
      const auto first = static_cast<unsigned char>(piece[at]);
      const size_t length = first < 0x80 ? 1 : first < 0xc0 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
      if (length == 0 || at + length > piece.size()) return false;
      at += length;
    }
  }
  return true;
}

TEST(Generate, GreedyIsWhatTransformersGives) {
  const Json expected = tiny_expected();
  const Json& greedy = *expected.find("greedy");
  const Generation g = tiny().generate(kPrompt, {.max_tokens = 24});
  EXPECT_EQ(g.prompt_ids, ids_at(greedy, "ids"));
  EXPECT_EQ(g.ids, ids_at(greedy, "generated"));
  EXPECT_EQ(g.text, kGreedyText);
  EXPECT_EQ(g.text, greedy.find("text")->as_string("text"));
  EXPECT_EQ(g.finish_reason, FinishReason::length);
}

TEST(Generate, ChatGoesThroughTheTemplate) {
  const Json expected = tiny_expected();
  const Json& chat = *expected.find("chat");
  const std::vector<ChatMessage> messages = {{"user", "Have you seen Miss Elliot?"}};
  EXPECT_EQ(tiny().apply_chat_template(messages), chat.find("text")->as_string("text"));
  const Generation g = tiny().chat(messages, {.max_tokens = 24});
  EXPECT_EQ(g.prompt_ids, ids_at(chat, "ids"));
  EXPECT_EQ(g.ids, ids_at(chat, "generated"));
  EXPECT_EQ(g.text, chat.find("reply")->as_string("reply"));
}

TEST(Generate, TemplatesSeeEverySpecialTokenThatHasAName) {
  const TempFolder folder;
  const char* config =
      R"({"bos_token": "<b>", "cls_token": {"content": "<c>"}, "mask_token": null, "image_token": "<i>",
      "add_bos_token": true, "additional_special_tokens": ["<x>"], "extra_special_tokens": {"audio": "<a>"}%})";
  const char* source =
      "{{ bos_token }}|{{ cls_token }}|{{ mask_token }}|{{ image_token }}|{{ add_bos_token }}|"
      "{{ additional_special_tokens }}|{{ audio }}|{{ sep_token }}";
  // The map counts where the configuration does not describe the tokens.
  for (const auto& [more, expected] :
       {std::pair("", "<b>|<c>||<i>|||<a>|<s>"), {R"(, "added_tokens_decoder": {})", "<b>|<c>||<i>|||<a>|"}}) {
    std::string text = config;
    const CausalLM model = load(tiny_variant(folder, *more ? "described" : "legacy",
                                             {{"tokenizer_config.json", text.replace(text.find('%'), 1, more)},
                                              {"special_tokens_map.json", R"({"bos_token": "?", "sep_token": "<s>"})"},
                                              {"chat_template.jinja", source}}));
    EXPECT_EQ(model.apply_chat_template({{"user", "a"}}), expected);
  }
}

TEST(Generate, StreamedPiecesMakeTheText) {
  for (const uint64_t seed : {1u, 2u, 3u, 4u}) {
    // Hot enough that single bytes of characters come out in any order.
    const Streamed s = stream(tiny(), {.max_tokens = 200, .temperature = 4.0f, .seed = seed, .ignore_eos = true});
    EXPECT_EQ(s.joined, s.result.text);
    EXPECT_TRUE(whole_characters(s.pieces));
    EXPECT_EQ(s.result.ids.size(), 200u);
    EXPECT_GT(s.pieces.size(), 50u);
  }
}

// Every piece of the text as a stop string: inside one token, across several, at the very beginning.
TEST(Generate, StopsBeforeTheFirstStopString) {
  const std::string full = kGreedyText;
  for (const size_t length : {1u, 2u, 5u, 11u}) {
    for (size_t at = 0; at + length <= full.size(); at += 3) {
      const std::string stop = full.substr(at, length);
      const Streamed s = stream(tiny(), {.max_tokens = 24, .stop = {stop}});
      EXPECT_EQ(s.result.text, full.substr(0, full.find(stop))) << "stop: '" << stop << "'";
      EXPECT_EQ(s.joined, s.result.text);
      EXPECT_EQ(s.result.finish_reason, FinishReason::stop);
    }
  }
}

TEST(Generate, TheEarliestOfSeveralStopStringsWins) {
  const auto text = [](std::vector<std::string> stop) {
    return tiny().generate(kPrompt, {.max_tokens = 24, .stop = std::move(stop)}).text;
  };
  EXPECT_EQ(text({"world", "then", "never"}), " in the country, and ");
  EXPECT_EQ(text({"y, and then, and t", "never"}), " in the countr");
  EXPECT_EQ(text({", in"}), " in the country, and then, and then");
}

TEST(Generate, TextHeldBackForAStopStringComesOutInTheEnd) {
  for (const char* stop : {"and then?", "and\n", "world, and more", ""}) {
    const Streamed s = stream(tiny(), {.max_tokens = 24, .stop = {stop}});
    EXPECT_EQ(s.result.text, kGreedyText) << stop;
    EXPECT_EQ(s.joined, kGreedyText) << stop;
    EXPECT_EQ(s.result.finish_reason, FinishReason::length);
  }
}

TEST(Generate, EndsAtTheEndOfTextIds) {
  const std::vector<int32_t> greedy = ids_at(*tiny_expected().find("greedy"), "generated");
  const std::string third = std::to_string(greedy[2]);
  const TempFolder folder;
  // One id or a list of them, in generation_config.json or, without it, in config.json.
  Json config = Json::parse_file((tiny_folder() / "config.json").string());
  config.set("eos_token_id", int64_t{greedy[2]});
  const std::vector<std::filesystem::path> variants = {
      tiny_variant(folder, "one", {{"generation_config.json", "{\"eos_token_id\": " + third + "}"}}),
      tiny_variant(folder, "list", {{"generation_config.json", "{\"eos_token_id\": [500, " + third + "]}"}}),
      tiny_variant(folder, "config", {{"generation_config.json", ""}, {"config.json", config.dump()}})};
  for (const auto& path : variants) {
    const CausalLM model = load(path);
    const Generation g = model.generate(kPrompt, {.max_tokens = 24});
    EXPECT_EQ(g.ids, std::vector<int32_t>(greedy.begin(), greedy.begin() + 3)) << path;
    EXPECT_EQ(g.text, tiny().decode(std::span(greedy).first(2))) << path;
    EXPECT_EQ(g.finish_reason, FinishReason::stop);
    EXPECT_EQ(model.generate(kPrompt, {.max_tokens = 24, .ignore_eos = true}).ids, greedy);
  }
}

TEST(Generate, KeepsWithinTheContext) {
  const Generation full = tiny().generate(kPrompt, {.max_tokens = 24});
  // The last id needs no place of its own: 11 of the prompt and 3 of the 4 new ones.
  const Generation cut = tiny().generate(kPrompt, {.max_tokens = 24, .context = 14});
  EXPECT_EQ(cut.ids, std::vector<int32_t>(full.ids.begin(), full.ids.begin() + 4));
  EXPECT_EQ(cut.finish_reason, FinishReason::length);
  EXPECT_TRUE(tiny().generate(kPrompt, {.max_tokens = 0}).ids.empty());
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(tiny().generate(kPrompt, {.max_tokens = kMost, .context = 14}).ids, cut.ids);
  EXPECT_EQ(tiny().generate(kPrompt, {.max_tokens = kMost}).ids, tiny().generate(kPrompt, {.max_tokens = 4096}).ids);

  const std::vector<int32_t> longest(512, 35);
  EXPECT_EQ(tiny().generate(longest, {.max_tokens = 5, .ignore_eos = true}).ids.size(), 1u);
  const std::vector<int32_t> too_long(513, 35);
  expect_error(ErrorCode::invalid_argument, "513", [&] { tiny().generate(too_long); });
  expect_error(ErrorCode::invalid_argument, "the context 8", [] { tiny().generate(kPrompt, {.context = 8}); });
  expect_error(ErrorCode::invalid_argument, "513", [] { tiny().generate(kPrompt, {.context = 513}); });
  expect_error(ErrorCode::invalid_argument, "context", [] { tiny().generate(kPrompt, {.context = -1}); });
  expect_error(ErrorCode::invalid_argument, "max_tokens", [] { tiny().generate(kPrompt, {.max_tokens = -1}); });
}

TEST(Generate, LogitsInPortionsAreAllLogits) {
  std::vector<int32_t> ids(150);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(7 * i % 512);
  const std::vector<float> whole = tiny().logits(ids);
  size_t seen = 0;
  tiny().logits_in_portions(ids, [&](int64_t first, std::span<const float> rows) {
    EXPECT_EQ(static_cast<size_t>(first) * 512, seen);
    EXPECT_LE(rows.size(), 64u * 512);
    for (size_t i = 0; i < rows.size(); ++i) ASSERT_NEAR(rows[i], whole[seen + i], 1e-4);
    seen += rows.size();
  });
  EXPECT_EQ(seen, whole.size());
  const std::vector<int32_t> too_long(513, 35);
  expect_error(ErrorCode::invalid_argument, "the context 512", [&] { tiny().logits(too_long); });
}

TEST(Generate, RefusesPromptsThatCannotBe) {
  expect_error(ErrorCode::invalid_argument, "empty", [] { tiny().generate(""); });
  expect_error(ErrorCode::invalid_argument, "512", [] { tiny().generate(std::vector<int32_t>{1, 512}); });
  expect_error(ErrorCode::invalid_argument, "-1", [] { tiny().generate(std::vector<int32_t>{1, -1}); });
}

TEST(Generate, DoesNotDependOnTheNumberOfThreads) {
  for (const char* format : {"", "nf4", "int8", "int8-dynamic"}) {
    const CausalLM model = load(tiny_folder(), {.format = format});
    const GenerateOptions options{.max_tokens = 60, .temperature = 1.0f, .seed = 5, .ignore_eos = true};
    set_threads(1);
    const Generation one = model.generate(kPrompt, options);
    const std::vector<float> logits = model.logits(one.ids);
    for (const int threads : {2, 3}) {
      set_threads(threads);
      EXPECT_EQ(model.generate(kPrompt, options).ids, one.ids) << format << ", " << threads << " threads";
      EXPECT_EQ(model.logits(one.ids), logits) << format << ", " << threads << " threads";
    }
    set_threads(0);
  }
}

TEST(Generate, SmallerCachesGiveNearlyTheSame) {
  // Greedy margins of this text are above 0.01 (expected.json); a cache in 16 bit moves logits by less.
  const std::vector<int32_t> greedy = ids_at(*tiny_expected().find("greedy"), "generated");
  EXPECT_EQ(tiny().generate(kPrompt, {.max_tokens = 24, .kv_dtype = DType::f16}).ids, greedy);
  EXPECT_EQ(tiny().generate(kPrompt, {.max_tokens = 4, .kv_dtype = DType::bf16}).ids,
            std::vector<int32_t>(greedy.begin(), greedy.begin() + 4));
  expect_error(ErrorCode::invalid_argument, "kv_dtype: found int32, expected fp32, fp16, bf16 or int8",
               [] { tiny().generate(kPrompt, {.kv_dtype = DType::i32}); });
}

TEST(Generate, TheCacheIsAsExactAsTheLayers) {
  const std::string model = tiny_folder().string();
  const auto cache_of = [&](const LoadModelOptions& options) {
    return AutoModelForCausalLM::from_pretrained(model, options).generate(kPrompt, {.max_tokens = 2}).kv_dtype;
  };
  EXPECT_EQ(cache_of({}), DType::f32);
  EXPECT_EQ(cache_of({.head = "int8"}), DType::f32);
  EXPECT_EQ(cache_of({.format = "nf4"}), DType::f16);
  EXPECT_EQ(cache_of({.format = "int8"}), DType::f16);
  EXPECT_EQ(cache_of({.format = "nf4", .activations = "fp32"}), DType::f32);
  EXPECT_EQ(tiny().generate(kPrompt, {.max_tokens = 2, .kv_dtype = DType::i8}).kv_dtype, DType::i8);
}

TEST(Generate, WorksFromIdsWithoutATokenizer) {
  const TempFolder folder;
  const CausalLM model = load(tiny_variant(folder, "bare", {{"tokenizer.json", ""}, {"tokenizer_config.json", ""}}));
  const Json expected = tiny_expected();
  const Json& greedy = *expected.find("greedy");
  EXPECT_FALSE(model.has_tokenizer());
  const Generation g = model.generate(ids_at(greedy, "ids"), {.max_tokens = 24});
  EXPECT_EQ(g.ids, ids_at(greedy, "generated"));
  EXPECT_EQ(g.text, "");
  expect_error(ErrorCode::invalid_argument, "--ids", [&] { model.generate(kPrompt); });
  expect_error(ErrorCode::invalid_argument, "no chat template", [&] { model.chat({{"user", "Hello"}}); });
}

TEST(Generate, StopsWhenAsked) {
  request_interrupt();
  expect_error(ErrorCode::interrupted, "", [] { tiny().generate(kPrompt); });
  clear_interrupt();
  EXPECT_EQ(tiny().generate(kPrompt, {.max_tokens = 2}).ids.size(), 2u);
}

}  // namespace
}  // namespace nibble
