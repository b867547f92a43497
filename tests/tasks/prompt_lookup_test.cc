// Guessing from the text: what is guessed, and that it changes nothing but the number of forward passes.
#include "tasks/prompt_lookup.h"

#include <gtest/gtest.h>

#include "nibble/system.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

constexpr const char* kPrompt =
    "She had been forced into prudence in her youth, she learned romance as she grew older. She had been forced into";

TEST(PromptLookup, GuessesWhatFollowedTheLongestMatch) {
  struct Row {
    std::vector<int32_t> text;
    int64_t most;
    std::vector<int32_t> guess;
  };
  const Row rows[] = {
      {{1, 2, 3, 4, 5, 1, 2, 3}, 2, {4, 5}},
      {{1, 2, 3, 4, 5, 1, 2, 3}, 10, {4, 5, 1, 2, 3}},
      {{1, 2, 3, 4, 5, 1, 2, 3}, 0, {}},
      {{9, 3, 7, 2, 3, 8, 1, 2, 3}, 1, {8}},                 // two ids match, though one does earlier
      {{0, 1, 2, 3, 6, 5, 1, 2, 3, 7, 0, 1, 2, 3}, 1, {6}},  // the first of several; more than three do not count
      {{1, 2, 3}, 4, {}},
      {{4, 4}, 4, {4}},
      {{4, 4, 4, 4, 4}, 4, {4, 4}},  // three match from the first on, and two follow
      {{4}, 4, {}},
      {{}, 4, {}},
  };
  for (const Row& row : rows) EXPECT_EQ(look_up(row.text, row.most), row.guess) << row.text.size() << " " << row.most;
}

struct Streamed {
  Generation g;
  std::string pieces;
};

Streamed run(const CausalLM& model, GenerateOptions options, int64_t prompt_lookup) {
  Streamed r;
  options.prompt_lookup = prompt_lookup;
  options.on_text = [&](std::string_view piece) { r.pieces += std::string(piece) + "|"; };
  r.g = model.generate(kPrompt, options);
  return r;
}

void expect_same(const CausalLM& model, const GenerateOptions& options, const std::string& what) {
  const Streamed plain = run(model, options, 0);
  EXPECT_EQ(plain.g.drafted, 0) << what;
  for (const int64_t n : {1, 4, 10}) {
    const Streamed guessed = run(model, options, n);
    EXPECT_EQ(guessed.g.ids, plain.g.ids) << what << ", " << n;
    EXPECT_EQ(guessed.pieces, plain.pieces) << what << ", " << n;
    EXPECT_EQ(guessed.g.finish_reason, plain.g.finish_reason) << what << ", " << n;
    EXPECT_LE(guessed.g.accepted, guessed.g.drafted) << what << ", " << n;
  }
}

TEST(PromptLookup, GivesTheSameTextForAllOptions) {
  expect_same(tiny(), {.max_tokens = 60}, "greedy");
  for (const uint64_t seed : {1u, 2u, 3u}) {
    expect_same(tiny(), {.max_tokens = 60, .temperature = 0.7f, .seed = seed}, "sampled");
    expect_same(tiny(), {.max_tokens = 60, .temperature = 1.5f, .top_k = 20, .top_p = 0.9f, .seed = seed}, "cut off");
  }
  expect_same(tiny(), {.max_tokens = 60, .repeat_penalty = 1.2f}, "repeat penalty");
  expect_same(tiny(), {.max_tokens = 60, .stop = {"and", "the w"}}, "stop");
  for (const int64_t most : {0, 1, 2, 3, 5, 6, 7}) expect_same(tiny(), {.max_tokens = most}, std::to_string(most));
  const auto prompt = static_cast<int64_t>(tiny().encode(kPrompt).size());
  for (const int64_t more : {0, 1, 2, 9}) {
    expect_same(tiny(), {.max_tokens = 60, .context = prompt + more}, "context + " + std::to_string(more));
  }
  for (const DType dtype : {DType::f16, DType::bf16, DType::i8}) {
    expect_same(tiny(), {.max_tokens = 60, .kv_dtype = dtype}, std::string(dtype_name(dtype)));
  }
}

TEST(PromptLookup, GivesTheSameTextInEveryFormat) {
  for (const char* format : {"fp32", "fp16", "int8", "int8-dynamic", "nf4", "int4"}) {
    expect_same(load(tiny_folder(), {.format = format}), {.max_tokens = 40, .ignore_eos = true}, format);
  }
  expect_same(load(tiny_folder(), {.format = "nf4", .activations = "fp32"}), {.max_tokens = 40}, "fp32 activations");
  expect_same(load(tiny_folder(), {.format = "nf4", .compute_dtype = DType::bf16}), {.max_tokens = 40}, "bf16");
  expect_same(load(tiny_folder(), {.format = "int8-dynamic", .activation_range = "tensor", .head = "int8"}),
              {.max_tokens = 40}, "range per call");
}

TEST(PromptLookup, TakesFewerPassesWhereTheTextRepeatsItself) {
  const Streamed plain = run(tiny(), {.max_tokens = 100, .ignore_eos = true}, 0);
  const Streamed guessed = run(tiny(), {.max_tokens = 100, .ignore_eos = true}, 8);
  EXPECT_EQ(plain.g.tokens_per_forward, 1.0);
  EXPECT_GT(guessed.g.accepted, 20);
  EXPECT_GT(guessed.g.drafted, guessed.g.accepted);
  // 99 tokens behind the first, which comes out of the prompt's pass; each that was guessed saved a pass.
  EXPECT_DOUBLE_EQ(guessed.g.tokens_per_forward, 99.0 / static_cast<double>(99 - guessed.g.accepted));
}

TEST(PromptLookup, DoesNotDependOnTheNumberOfThreads) {
  set_threads(1);
  const Streamed one = run(tiny(), {.max_tokens = 60, .temperature = 1.0f, .seed = 4}, 6);
  set_threads(3);
  const Streamed three = run(tiny(), {.max_tokens = 60, .temperature = 1.0f, .seed = 4}, 6);
  set_threads(0);
  EXPECT_EQ(one.g.ids, three.g.ids);
  EXPECT_EQ(one.g.accepted, three.g.accepted);
}

TEST(PromptLookup, ServesConversations) {
  const std::vector<ChatMessage> messages = {{"user", "Have you seen Miss Elliot? Have you seen Miss Elliot?"}};
  EXPECT_EQ(tiny().chat(messages, {.max_tokens = 40, .prompt_lookup = 5}).text,
            tiny().chat(messages, {.max_tokens = 40}).text);
}

TEST(PromptLookup, RefusesNumbersThatMeanNothing) {
  for (const int64_t n : {-1, 1025}) {
    expect_error(ErrorCode::invalid_argument, "prompt_lookup: found " + std::to_string(n),
                 [&] { tiny().generate(kPrompt, {.prompt_lookup = n}); });
  }
}

}  // namespace
}  // namespace nibble
