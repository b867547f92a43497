// What becomes of the lines of training data: which tokens, and which of them are trained.
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "ops/cross_entropy.h"
#include "support/tiny_encoder.h"
#include "tasks/finetune_data.h"
#include "tasks/finetune_text.h"
#include "tasks/tiny.h"

namespace nibble {
namespace {

using namespace nibble::test;

class FinetuneDataTest : public ::testing::Test {
 protected:
  TrainingData read(const std::string& lines, const std::string& name = "data.jsonl", int64_t max_length = 512) {
    return read_training_data(model_, temp_.write(name, lines).string(), {.max_length = max_length});
  }
  /// The trained part of a sample as text, special tokens included.
  std::string trained(const TrainingSample& sample) const {
    std::vector<int32_t> ids;
    for (const int32_t label : sample.labels) {
      if (label != kNoLabel) ids.push_back(label);
    }
    return model_->tokenizer->decode(ids);
  }
  std::string text(const TrainingSample& sample) const { return model_->tokenizer->decode(sample.ids); }

  TempFolder temp_;
  std::shared_ptr<LoadedModel> model_ = load_model(tiny_folder().string(), {});
};

TEST_F(FinetuneDataTest, EveryFormTrainsTheAnswersOnly) {
  struct Row {
    const char* line;
    const char* trained;
    const char* text;  // ends with
  };
  const Row rows[] = {
      {R"({"text": "Once upon a time."})", "Once upon a time.<|endoftext|>", "Once upon a time.<|endoftext|>"},
      {R"({"prompt": "2 and 2 is", "completion": " four"})", " four<|endoftext|>", "2 and 2 is four<|endoftext|>"},
      {R"({"prompt": "2 and 2 is", "response": " four"})", " four<|endoftext|>", "2 and 2 is four<|endoftext|>"},
      {R"({"instruction": "Add.", "input": "2, 2", "output": "4"})", "4<|endoftext|>",
       "### Instruction:\nAdd.\n\n### Input:\n2, 2\n\n### Response:\n4<|endoftext|>"},
      {R"({"instruction": "Speak.", "output": "Yes"})", "Yes<|endoftext|>",
       "### Instruction:\nSpeak.\n\n### Response:\nYes<|endoftext|>"},
      {R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})",
       "Hello<|im_end|>\n", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"},
      {R"({"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"},
           {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"},
           {"role": "assistant", "content": "d"}, {"role": "user", "content": "e"}]})",
       "b<|im_end|>\nd<|im_end|>\n", "d<|im_end|>\n<|im_start|>user\ne<|im_end|>\n"},
      {R"({"messages": [{"role": "assistant", "content": " assistant"}, {"role": "user", "content": "a"}]})",
       " assistant<|im_end|>\n", "assistant<|im_end|>\n<|im_start|>user\na<|im_end|>\n"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
           {"role": "assistant", "content": "Hello"}]})",
       "Hello<|im_end|>\n", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"},
      {R"({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]})",
       "Hello<|im_end|>\n", "<|im_start|>assistant\nHello<|im_end|>\n"},
      {R"({"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
           {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]})",
       "d<|im_end|>\n", "<|im_start|>assistant\nd<|im_end|>\n"},
  };
  for (const Row& row : rows) {
    std::string line = row.line;
    std::replace(line.begin(), line.end(), '\n', ' ');
    const TrainingData data = read(line);
    ASSERT_EQ(data.samples.size(), 1u) << line;
    EXPECT_EQ(trained(data.samples[0]), row.trained) << line;
    EXPECT_TRUE(text(data.samples[0]).ends_with(row.text)) << text(data.samples[0]);
    EXPECT_EQ(data.report.missing_eos, 0) << line;
  }
}

// The tokens in front of a trained turn are those that generation would begin with.
TEST_F(FinetuneDataTest, ThePromptIsWhatGenerationSees) {
  const TrainingSample sample =
      read(R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})")
          .samples[0];
  const std::string prompt = CausalLM(model_).apply_chat_template({{.role = "user", .content = "Hi"}});
  const std::vector<int32_t> ids = model_->tokenizer->encode(prompt, {.add_special_tokens = false});
  ASSERT_GT(sample.ids.size(), ids.size());
  EXPECT_TRUE(std::equal(ids.begin(), ids.end(), sample.ids.begin()));
  EXPECT_EQ(sample.labels[ids.size() - 1], kNoLabel);
  EXPECT_NE(sample.labels[ids.size()], kNoLabel);
}

// A tokenizer that puts a space in front of a text, as Llama 2's does, must not put one between prompt and answer.
TEST(MaskedText, DecodesToTheTextWhereverItIsCut) {
  const Tokenizer tokenizer = Tokenizer::from_json(
      Json::parse(R"({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "_"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]},
          "model": {"type": "BPE", "vocab": {"_": 0, "Q": 1, ":": 2, "b": 3, "u": 4, "_b": 5, "_Q": 6},
            "merges": ["_ b", "_ Q"]},
          "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "_"}, "content": " "},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
          "added_tokens": [{"id": 7, "content": "<s>", "special": true}, {"id": 8, "content": "</s>", "special": true}],
          "post_processor": {"type": "RobertaProcessing", "cls": ["<s>", 7], "sep": ["</s>", 8]}})",
                  "tokenizer.json"),
      Json(), "tokenizer.json");
  const std::vector<int32_t> whole = {7, 6, 2, 5, 4};
  EXPECT_EQ(tokenizer.encode("Q: bu"), (std::vector<int32_t>{7, 6, 2, 5, 4, 8}));
  const auto masked = [&](std::initializer_list<const char*> pieces) {
    MaskedText sample(tokenizer, true);
    for (const char* piece : pieces) sample.add(piece, piece != *pieces.begin());
    return sample.take();
  };
  EXPECT_EQ(masked({"Q:", " bu"}).ids, whole);
  EXPECT_EQ(masked({"", "Q: bu"}).ids, whole);
  const TrainingSample cut = masked({"Q: ", "b", "u"});
  EXPECT_EQ(cut.ids, (std::vector<int32_t>{7, 6, 2, 0, 3, 4}));
  EXPECT_EQ(cut.labels, (std::vector<int32_t>{kNoLabel, kNoLabel, kNoLabel, kNoLabel, 3, 4}));
  EXPECT_EQ(tokenizer.decode(cut.ids, {.skip_special_tokens = true}), "Q: bu");
}

// Of 3000 turns, which took minutes when each was rendered and tokenized behind all that precede it.
TEST_F(FinetuneDataTest, ALongConversationIsReadInLinearTime) {
  std::string line = R"({"messages": [{"role": "system", "content": "Be brief."})", answers;
  for (int i = 0; i < 3000; ++i) {
    const std::string number = std::to_string(i);
    line += R"(, {"role": "user", "content": "What is )" + number + R"(?"}, {"role": "assistant", "content": "It is )" +
            number + R"(."})";
    answers += "It is " + number + ".<end>";
  }
  // Both refuse a conversation that begins with an answer; the second has no token of the vocabulary between turns.
  for (const std::string end : {"<|im_end|>\n", "!\n"}) {
    model_->chat_template =
        "{% for m in messages %}{% if loop.first and m.role == 'assistant' %}"
        "{{ raise_exception('no question') }}{% endif %}{{ m.role + ': ' + m.content + '" +
        replaced(end, "\n", "\\n") +
        "' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    const TrainingSample sample = read(line + "]}", "data.jsonl", 1 << 20).samples[0];
    std::string expected = answers;
    for (size_t at = 0; (at = expected.find("<end>", at)) != std::string::npos;) expected.replace(at, 5, end);
    EXPECT_EQ(trained(sample), expected);
    EXPECT_TRUE(text(sample).starts_with("system: Be brief." + end + "user: What is 0?" + end + "assistant: It is 0."));
  }
}

TEST_F(FinetuneDataTest, TokenIdsAreTakenAsTheyAre) {
  const TrainingData data = read(R"({"input_ids": [5, 6, 7], "labels": [-100, 6, -100]})"
                                 "\n\n"
                                 R"({"input_ids": [8, 9]})");
  EXPECT_EQ(data.samples[0].labels, (std::vector<int32_t>{-100, 6, -100}));
  EXPECT_EQ(data.samples[1].labels, (std::vector<int32_t>{8, 9}));
  EXPECT_EQ(data.report.tokens, 5);
  EXPECT_EQ(data.report.trained_tokens, 2);
}

TEST_F(FinetuneDataTest, MalformedLinesAreNamed) {
  struct Row {
    const char* line;
    const char* says;
  };
  const Row rows[] = {
      {R"({"text": 5})", "data.jsonl:2: text: found an integer"},
      {R"({"title": "x"})", "data.jsonl:2: has none of input_ids, messages"},
      {R"([1])", "data.jsonl:2: found an array"},
      {R"({"text": )", "data.jsonl:2"},
      {R"({"prompt": "x"})", "data.jsonl:2: completion: is missing"},
      {R"({"instruction": "x"})", "data.jsonl:2: output: is missing"},
      {R"({"messages": []})", "data.jsonl:2: messages: is empty"},
      {R"({"messages": [{"role": "user", "content": "x"}, {"content": "x"}]})",
       "data.jsonl:2: messages[1]: role: is missing"},
      {R"({"messages": [{"role": "user"}, {"role": "assistant", "content": "x"}]})",
       "data.jsonl:2: messages[0]: content: is missing"},
      {R"({"messages": [{"role": "user", "content": 5}]})", "data.jsonl:2: messages[0]: content: found an integer"},
      {R"({"messages": ["hi"]})", "data.jsonl:2: messages[0]: found a string"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image"}]}]})",
       "data.jsonl:2: messages[0]: content[1]: type: found 'image', expected 'text'"},
      {R"({"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant"}]})",
       "data.jsonl:2: completion[0]: content: is missing"},
      {R"({"conversations": [{"from": "robot", "value": "x"}]})", "conversations[0]: from: found 'robot'"},
      {R"({"input_ids": [1, 512]})", "data.jsonl:2: input_ids: found 512, which is outside the vocabulary of 512"},
      {R"({"input_ids": [1, 2], "labels": [1]})", "data.jsonl:2: labels: found 1, expected 2"},
      {R"({"input_ids": [1, 2], "labels": [1, -1]})", "data.jsonl:2: labels: found -1"},
  };
  for (const Row& row : rows) {
    expect_error(ErrorCode::format, row.says, [&] { read("{\"text\": \"good\"}\n" + std::string(row.line)); });
  }
  expect_error(ErrorCode::unsupported, "trained on .jsonl or .txt", [&] { read("a\tb\n", "data.tsv"); });
}

TEST_F(FinetuneDataTest, WhatATemplateRefusesIsNamedByItsLine) {
  model_->chat_template =
      "{% for m in messages %}{% if m.role == 'robot' %}{{ raise_exception('no robots') }}"
      "{% endif %}{{ m.content }}{% endfor %}";
  expect_error(ErrorCode::invalid_argument,
               "data.jsonl:1: messages: ", [&] { read(R"({"messages": [{"role": "robot", "content": "x"}]})"); });
}

TEST_F(FinetuneDataTest, ByteOrderMarksAreNoTextAndLatin1IsRefused) {
  const std::string mark = "\xef\xbb\xbf";
  EXPECT_EQ(text(read(mark + "{\"text\": \"Hi\"}").samples[0]), "Hi<|endoftext|>");
  EXPECT_EQ(text(read(mark + "Hi", "data.txt").samples[0]), "Hi<|endoftext|>");
  expect_error(ErrorCode::format, "data.jsonl:2: byte 13 of the line is not UTF-8",
               [&] { read("{\"text\": \"Hi\"}\n{\"text\": \"na\xefve\"}\n"); });
  expect_error(ErrorCode::format, "data.txt:1: byte 3 of the line is not UTF-8", [&] { read("na\xefve", "data.txt"); });
}

TEST_F(FinetuneDataTest, TheDoctorCountsWhatIsOdd) {
  const std::string long_prompt(300, 'x');
  const TrainingData data = read(
      "{\"input_ids\": [0, 0, 5, 6]}\n"  // two bos
      "{\"input_ids\": [5, 6, 7]}\n"     // no eos
      "{\"text\": \"" +
          long_prompt +
          "\"}\n"  // cut
          "{\"prompt\": \"" +
          long_prompt + "\", \"completion\": \"y\"}\n",  // gone
      "data.jsonl", 40);
  EXPECT_EQ(data.report.samples, 3);
  EXPECT_EQ(data.report.truncated, 2);
  EXPECT_EQ(data.report.dropped, 1);
  EXPECT_EQ(data.report.missing_eos, 2);  // what was cut too
  EXPECT_EQ(data.report.double_bos, 1);
  EXPECT_EQ(data.report.longest, 40);
  EXPECT_EQ(data.report.warnings().size(), 4u);
  expect_error(ErrorCode::format, "has nothing to train on: of all 1 samples no label is left within 40 tokens",
               [&] { read("{\"prompt\": \"" + long_prompt + "\", \"completion\": \"y\"}", "data.jsonl", 40); });
  expect_error(ErrorCode::format, "has nothing to train on", [&] { read("\n\n"); });
}

TEST_F(FinetuneDataTest, SamplesWithoutAnyTextAreCountedAndLeftOut) {
  const TrainingData data = read(R"({"prompt": "", "completion": ""})"
                                 "\n"
                                 R"({"input_ids": []})"
                                 "\n"
                                 R"({"text": "Hi"})");
  EXPECT_EQ(data.report.samples, 1);
  EXPECT_EQ(data.report.dropped, 2);
}

TEST_F(FinetuneDataTest, APlainTextBecomesRows) {
  const TrainingData data = read(heldout(), "data.txt", 100);
  const auto ids = model_->tokenizer->encode(heldout());
  EXPECT_EQ(data.report.tokens, static_cast<int64_t>(ids.size()) + 1);
  EXPECT_EQ(data.samples[1].ids, (std::vector<int32_t>{ids.begin() + 100, ids.begin() + 200}));
  EXPECT_EQ(data.report.missing_eos, 0);
}

TEST_F(FinetuneDataTest, PackingFillsRowsWithoutTouchingSamples) {
  std::vector<TrainingSample> samples;
  const std::vector<size_t> lengths = {3, 4, 1, 7, 2, 5};
  for (const size_t n : lengths)
    samples.push_back({.ids = std::vector<int32_t>(n, 5), .labels = std::vector<int32_t>(n, 5)});
  const auto rows = rows_of(samples, true, 8);
  EXPECT_EQ(rows.size(), 3u);  // 22 tokens in rows of 8
  std::multiset<size_t> seen;
  for (const auto& row : rows) {
    size_t tokens = 0;
    for (const size_t i : row) tokens += lengths[i], seen.insert(i);
    EXPECT_LE(tokens, 8u);
  }
  EXPECT_EQ(seen, (std::multiset<size_t>{0, 1, 2, 3, 4, 5}));
  const LabelledBatch batch = batch_of(samples, rows, {0, 1});
  EXPECT_EQ(std::accumulate(batch.lengths.begin(), batch.lengths.end(), int64_t{0}),
            static_cast<int64_t>(batch.ids.size()));
  EXPECT_EQ(batch.lengths.size(), rows[0].size() + rows[1].size());
}

TEST(EpochOrder, IsAnotherPermutationEachTime) {
  const auto first = epoch_order(50, true, 1, 0), second = epoch_order(50, true, 1, 1);
  EXPECT_NE(first, second);
  EXPECT_EQ(first, epoch_order(50, true, 1, 0));
  EXPECT_NE(first, epoch_order(50, true, 2, 0));
  EXPECT_EQ(std::set<size_t>(first.begin(), first.end()).size(), 50u);
  EXPECT_EQ(epoch_order(3, false, 1, 5), (std::vector<size_t>{0, 1, 2}));
}

TEST(ClassifierData, ComesAsTableOrAsIds) {
  const TempFolder temp;
  const auto model = load_model(write_encoder(temp, "bert"), {});
  const auto read = [&](const char* name, const std::string& text) {
    return read_training_data(model, temp.write(name, text).string(), {.classify = true, .max_length = 12});
  };
  const TrainingData table = read("d.tsv", "text\tlabel\nthe film is good\tgood\nso bad\t0\n");
  EXPECT_EQ(table.samples[0].labels, (std::vector<int32_t>{2}));
  EXPECT_EQ(table.samples[0].ids, (std::vector<int32_t>{2, 5, 6, 7, 9, 3}));
  EXPECT_EQ(table.samples[1].labels, (std::vector<int32_t>{0}));
  const TrainingData ids = read("d.jsonl",
                                "\r\n"
                                R"({"input_ids": [2, 5, 3], "labels": 1})"
                                "\n"
                                R"({"input_ids": [2, 6, 3], "labels": [2], "token_type_ids": [0, 1, 1]})");
  EXPECT_EQ(ids.samples[0].labels, (std::vector<int32_t>{1}));
  EXPECT_EQ(ids.samples[1].token_type_ids, (std::vector<int32_t>{0, 1, 1}));
  const LabelledBatch batch = batch_of(ids.samples, rows_of(ids.samples, false, 12), {0, 1});
  EXPECT_EQ(batch.token_type_ids, (std::vector<int32_t>{0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(read("long.tsv", "text\tlabel\nso so so so so so so so so so so so so so\t1\n").report.truncated, 1);
  const TrainingData cut =
      read("long.jsonl", R"({"input_ids": [2, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 3], "labels": 1,)"
                         R"( "token_type_ids": [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]})");
  EXPECT_EQ(cut.report.truncated, 1);
  EXPECT_EQ(cut.samples[0].ids, (std::vector<int32_t>{2, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 3}));
  EXPECT_EQ(cut.samples[0].token_type_ids, (std::vector<int32_t>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
  expect_error(ErrorCode::format, "d.jsonl:1: labels: found 3, the model has labels 0 to 2",
               [&] { read("d.jsonl", R"({"input_ids": [2], "labels": 3})"); });
  expect_error(ErrorCode::format, "d.tsv:3: the model has no label 'great'",
               [&] { read("d.tsv", "text\tlabel\nso\tbad\nso good\tgreat\n"); });
  expect_error(ErrorCode::format, "d.jsonl:1: labels: is missing", [&] { read("d.jsonl", R"({"input_ids": [2]})"); });
}

TEST(ClassifierData, OfOneOutputHasNumbersForLabels) {
  const TempFolder temp;
  const EncoderFiles one = {.config =
                                replaced(kTinyBert, R"("0": "bad", "1": "fair", "2": "good")", R"("0": "stars")")};
  const auto model = load_model(write_encoder(temp, "bert", one), {});
  const auto targets = [&](const std::string& name, const std::string& text) {
    std::vector<float> all;
    for (const TrainingSample& sample :
         read_training_data(model, temp.write(name, text).string(), {.classify = true, .max_length = 12}).samples) {
      all.push_back(sample.targets.at(0));
    }
    return all;
  };
  const std::vector<float> expected = {3, 1.5f, -2};
  EXPECT_EQ(targets("d.csv", "text,label\ngood,3\nso,1.5\nbad,-2e0\n"), expected);
  EXPECT_EQ(targets("d.jsonl",
                    "{\"text\": \"good\", \"label\": 3}\n{\"text\": \"so\", \"label\": 1.5}\n"
                    "{\"text\": \"bad\", \"label\": -2.0}\n"),
            expected);
  for (const char* label : {"nan", "inf", "-inf", "1e300"}) {
    expect_error(ErrorCode::format, "d.csv:3: label: found",
                 [&] { targets("d.csv", "text,label\ngood,3\nbad," + std::string(label) + "\n"); });
  }
  expect_error(ErrorCode::format, "d.csv:2: label: found 'many', expected a number",
               [&] { targets("d.csv", "text,label\ngood,many\n"); });
  expect_error(ErrorCode::format, "d.jsonl:1: labels: found 1e+300, expected a finite number",
               [&] { targets("d.jsonl", R"({"input_ids": [2], "labels": 1e300})"); });
}

}  // namespace
}  // namespace nibble
