// Questions by log-likelihood: files, and scores against sums over the logits of whole sequences.
#include "nibble/evaluate_choices.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

ChoiceTask read(const TempFolder& folder, const std::string& lines, int64_t limit = 0) {
  return read_choice_task(folder.write("quiz.jsonl", lines).string(), limit);
}

TEST(ChoiceTask, ReadsQuestionsAndTextsToContinue) {
  const TempFolder folder;
  const ChoiceTask quiz = read(folder, R"({"query": "Question: Why?\n", "choices": ["so", "for fun"], "gold": 1}

{"choices": ["a", "b", "c"], "gold": 0, "query": "It is "}
)");
  EXPECT_EQ(quiz.name, "quiz");
  ASSERT_EQ(quiz.questions.size(), 2u);
  EXPECT_EQ(quiz.questions[0].context, "Question: Why?\nAnswer:");
  EXPECT_EQ(quiz.questions[0].choices, (std::vector<std::string>{"so", "for fun"}));
  EXPECT_EQ(quiz.questions[0].gold, 1);
  EXPECT_EQ(quiz.questions[1].context, "It is");
  const ChoiceTask asked = read(folder, R"({"query": "Question: Why?\nAnswer:", "choices": ["a", "b"], "gold": 1})");
  EXPECT_EQ(asked.questions[0].context, "Question: Why?\nAnswer:");
  const ChoiceTask words = read(folder, "{\"context\": \"Once upon a\", \"continuation\": \"time\"}\r\n");
  EXPECT_EQ(words.questions[0].choices, std::vector<std::string>{"time"});
  EXPECT_EQ(words.questions[0].gold, 0);
  EXPECT_EQ(read(folder,
                 R"({"query": "", "choices": ["a", "b"], "gold": 1})"
                 "\n{\"query\": \"a\", \"choices\": [\"a\", \"b\"], \"gold\": 0}",
                 1)
                .questions.size(),
            1u);
}

TEST(ChoiceTask, RefusesWhatIsNoQuestion) {
  const TempFolder folder;
  const std::pair<const char*, const char*> rows[] = {
      {"", "is empty"},
      {"\n\n", "is empty"},
      {"{", "line 1"},
      {R"({"context": "a", "answer": "b"})", "has neither \"choices\" nor \"continuation\""},
      {R"({"choices": ["a", "b"], "gold": 0})", "has no \"query\""},
      {R"({"query": "a", "choices": ["a", "b"]})", "has no \"gold\""},
      {R"({"query": "a", "choices": ["a", "b"], "gold": 2})", "gold: found 2, expected 0 to 1"},
      {R"({"query": "a", "choices": ["a", "b"], "gold": -1})", "gold: found -1"},
      {R"({"query": "a", "choices": ["a"], "gold": 0})", "choices: found 1, expected at least 2"},
      {R"({"query": "a", "choices": ["a", 3], "gold": 0})", "choices: found"},
      {R"({"query": "a", "choices": "ab", "gold": 0})", "choices: found"},
      {"{\"query\": \"a\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n{\"context\": \"a\", \"continuation\": \"b\"}",
       "line 2: the file has questions with choices and texts"},
  };
  for (const auto& [lines, says] : rows) {
    expect_error(ErrorCode::format, says, [&, text = lines] { read(folder, text); });
  }
  expect_error(ErrorCode::io, "none.jsonl", [] { read_choice_task("none.jsonl"); });
}

/// Sum of the log-probabilities of a choice, and whether each of its ids is the likeliest.
std::pair<double, bool> by_hand(const CausalLM& model, const std::string& context, const std::string& choice) {
  const std::vector<int32_t> start = model.encode(context), ids = model.encode(context + " " + choice);
  const std::vector<float> logits = model.logits(ids);
  const auto vocab = static_cast<size_t>(model.vocab_size());
  double sum = 0;
  bool greedy = true;
  for (size_t t = start.size(); t < ids.size(); ++t) {
    const float* row = logits.data() + (t - 1) * vocab;
    double total = 0;
    size_t best = 0;
    for (size_t i = 0; i < vocab; ++i) {
      total += std::exp(static_cast<double>(row[i]));
      if (row[i] > row[best]) best = i;
    }
    sum += static_cast<double>(row[static_cast<size_t>(ids[t])]) - std::log(total);
    greedy &= best == static_cast<size_t>(ids[t]);
  }
  return {sum, greedy};
}

ChoiceTask quiz() {
  ChoiceTask task = {.name = "quiz"};
  const std::vector<std::string> ends = {"her sister",        "a ship", "the morning after", "no",
                                         "Captain Wentworth", "Bath"};
  for (int64_t i = 0; i < 24; ++i) {
    ChoiceQuestion q = {.context = heldout().substr(static_cast<size_t>(100 * i), 80), .gold = i % 3};
    for (size_t c = 0; c < 3; ++c) q.choices.push_back(ends[(static_cast<size_t>(i) + c) % ends.size()]);
    while (q.context.back() == ' ' || q.context.back() == '\n') q.context.pop_back();
    task.questions.push_back(q);
  }
  return task;
}

TEST(EvaluateChoices, TakesTheLikeliestChoice) {
  const ChoiceTask task = quiz();
  const ChoiceReport report = evaluate_choices(tiny(), nullptr, task);
  EXPECT_EQ(report.questions, 24);
  EXPECT_FALSE(report.has_reference);
  EXPECT_EQ(report.verdict, "");
  double right = 0, right_by_length = 0;
  for (size_t i = 0; i < task.questions.size(); ++i) {
    const ChoiceQuestion& q = task.questions[i];
    size_t plain = 0, by_length = 0;
    std::vector<double> sums;
    for (const std::string& choice : q.choices) sums.push_back(by_hand(tiny(), q.context, choice).first);
    for (size_t c = 1; c < sums.size(); ++c) {
      const auto per_character = [&](size_t k) { return sums[k] / static_cast<double>(q.choices[k].size()); };
      if (sums[c] > sums[plain]) plain = c;
      if (per_character(c) > per_character(by_length)) by_length = c;
    }
    EXPECT_EQ(report.answers[i], static_cast<int64_t>(plain)) << i;
    right += static_cast<int64_t>(plain) == q.gold;
    right_by_length += static_cast<int64_t>(by_length) == q.gold;
  }
  EXPECT_NE(right, right_by_length);  // else the next two lines could hold by chance
  EXPECT_DOUBLE_EQ(report.accuracy, right / 24);
  EXPECT_DOUBLE_EQ(find_figure(report.figures, "accuracy_norm")->value, right_by_length / 24);
  EXPECT_LT(find_figure(report.figures, "accuracy")->low, report.accuracy);
}

TEST(EvaluateChoices, TextsToContinueCountWhenEveryTokenIsTheLikeliest) {
  ChoiceTask task = {.name = "last"};
  double nll = 0;
  std::vector<int64_t> want;
  for (size_t i = 0; i < 40; ++i) {
    const std::string text = heldout().substr(60 * i, 60);
    const size_t space = text.find_last_of(' ', 55), before = text.find_last_not_of(" \n", space);
    const std::string word = text.substr(space + 1, text.find_first_of(" \n", space + 1) - space - 1);
    task.questions.push_back({.context = text.substr(0, before + 1), .choices = {word}});
    const auto [sum, greedy] = by_hand(tiny(), task.questions.back().context, word);
    nll -= sum;
    want.push_back(greedy);
  }
  const ChoiceReport report = evaluate_choices(tiny(), nullptr, task);
  EXPECT_EQ(report.answers, want);
  EXPECT_GT(report.accuracy, 0);
  EXPECT_DOUBLE_EQ(report.accuracy, static_cast<double>(std::accumulate(want.begin(), want.end(), int64_t{0})) / 40);
  EXPECT_NEAR(find_figure(report.figures, "perplexity")->value / std::exp(nll / 40), 1, 1e-5);
}

TEST(EvaluateChoices, ComparesWithAReference) {
  const ChoiceTask task = quiz();
  const CausalLM model = load(tiny_folder(), {.format = "fp4"});
  const ChoiceReport alone = evaluate_choices(model, nullptr, task), original = evaluate_choices(tiny(), nullptr, task);
  const ChoiceReport report = evaluate_choices(model, &tiny(), task);
  EXPECT_EQ(report.answers, alone.answers);
  EXPECT_EQ(report.accuracy, alone.accuracy);
  EXPECT_EQ(report.reference_accuracy, original.accuracy);
  int64_t flips = 0;
  for (size_t i = 0; i < task.questions.size(); ++i) flips += alone.answers[i] != original.answers[i];
  EXPECT_EQ(report.flips, flips);
  EXPECT_GT(flips, 0);
  EXPECT_DOUBLE_EQ(find_figure(report.figures, "flip_share")->value, static_cast<double>(flips) / 24);
  EXPECT_NE(report.verdict.find("accuracy changes by"), std::string::npos);
  EXPECT_EQ(evaluate_choices(tiny(), &tiny(), task).flips, 0);

  ChoiceReport gated = report;
  gated.accuracy = 0.5;
  gated.reference_accuracy = 0.53;
  EXPECT_TRUE(gated.failed_gates({}).empty());
  EXPECT_TRUE(gated.failed_gates({.max_accuracy_drop = 0.031}).empty());
  EXPECT_EQ(gated.failed_gates({.max_accuracy_drop = 0.029}).size(), 1u);
}

// Formats that take one range of activations per call must not see a question cut in two.
TEST(EvaluateChoices, ModelsThatMixTokensSeeWholeQuestions) {
  const CausalLM model =
      load(tiny_folder(), {.format = "int8-dynamic", .activation_range = "tensor", .reduce_range = true});
  const ChoiceTask task = quiz();
  const ChoiceReport report = evaluate_choices(model, nullptr, task);
  for (size_t i = 0; i < task.questions.size(); ++i) {
    const ChoiceQuestion& q = task.questions[i];
    double best = -INFINITY;
    int64_t answer = -1;
    for (size_t c = 0; c < q.choices.size(); ++c) {
      // All but the last id, as the evaluation runs it.
      std::vector<int32_t> ids = model.encode(q.context + " " + q.choices[c]);
      const int32_t last = ids.back();
      ids.pop_back();
      const std::vector<float> logits = model.logits(ids);
      ids.push_back(last);
      const auto vocab = static_cast<size_t>(model.vocab_size());
      double sum = 0;
      for (size_t t = model.encode(q.context).size(); t < ids.size(); ++t) {
        const float* row = logits.data() + (t - 1) * vocab;
        double total = 0;
        for (size_t v = 0; v < vocab; ++v) total += std::exp(static_cast<double>(row[v]));
        sum += static_cast<double>(row[static_cast<size_t>(ids[t])]) - std::log(total);
      }
      if (sum > best) {
        best = sum;
        answer = static_cast<int64_t>(c);
      }
    }
    EXPECT_EQ(report.answers[i], answer) << i;
  }
}

TEST(EvaluateChoices, LongQuestionsLoseTheirBeginning) {
  ChoiceTask task = {.name = "long"};
  const std::string text = heldout().substr(0, 4000);
  task.questions.push_back({.context = text, .choices = {"her sister", "a ship"}});
  ASSERT_GT(tiny().encode(text).size(), 512u);
  EXPECT_EQ(evaluate_choices(tiny(), nullptr, task).truncated, 1);
  task.questions[0] = {.context = "a", .choices = {text, "b"}};
  expect_error(ErrorCode::format, "long: question 1: a choice alone is longer",
               [&] { evaluate_choices(tiny(), nullptr, task); });
  task.questions[0] = {.context = "", .choices = {"a", "b"}};
  expect_error(ErrorCode::format, "has no tokens", [&] { evaluate_choices(tiny(), nullptr, task); });
}

TEST(EvaluateChoices, NanIsAnErrorThatNamesTheLayer) {
  const TempFolder folder;
  const CausalLM broken = load(patched_tiny(folder, {{"model.layers.2.self_attn.v_proj.weight", {{7, 0x7fc0}}}}));
  expect_error(ErrorCode::format,
               "quiz: question 1: the logits are not finite; NaN or infinity appears first in the "
               "output of model.layers.2.self_attn.v_proj",
               [&] { evaluate_choices(broken, nullptr, quiz()); });
}

}  // namespace
}  // namespace nibble
