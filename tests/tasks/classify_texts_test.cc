// Files of labelled texts: three kinds, columns by name and number, and what is wrong with a file by its line.
#include <gtest/gtest.h>

#include "nibble/classify.h"
#include "support/files.h"

namespace nibble {
namespace {

using namespace nibble::test;

std::vector<std::string> texts_of(const LabelledTexts& data) {
  std::vector<std::string> texts;
  for (const TextInput& input : data.inputs) texts.push_back(input.pair ? input.text + "|" + *input.pair : input.text);
  return texts;
}

LabelledTexts read(const std::string& name, const std::string& content, const LabelledColumns& columns = {}) {
  const TempFolder folder;
  return read_labelled_texts(folder.write(name, content).string(), columns);
}

using Strings = std::vector<std::string>;

TEST(LabelledTexts, ReadsTabSeparatedLines) {
  const LabelledTexts data = read("d.tsv", "\xef\xbb\xbftext\tlabel\r\n\"so\" good \t1\r\n\r\nbad\t0");
  EXPECT_EQ(texts_of(data), (Strings{"\"so\" good ", "bad"}));
  EXPECT_EQ(data.labels, (Strings{"1", "0"}));
}

TEST(LabelledTexts, ReadsQuotedCsv) {
  const LabelledTexts data =
      read("d.csv", "id,sentence,label\n1,\"a, \"\"b\"\"\nand c\",pos\r\n2,plain,neg\n\n3,\"\",\"neg\"\n");
  EXPECT_EQ(texts_of(data), (Strings{"a, \"b\"\nand c", "plain", ""}));
  EXPECT_EQ(data.labels, (Strings{"pos", "neg", "neg"}));
}

TEST(LabelledTexts, ReadsJsonLines) {
  const LabelledTexts data = read("d.jsonl",
                                  "{\"idx\": 0, \"sentence1\": \"a\\tb\", \"sentence2\": \"c\", \"label\": 2}\n"
                                  "{\"label\": 3.5, \"sentence2\": \"e\", \"idx\": 1, \"sentence1\": \"d\"}\n");
  EXPECT_EQ(texts_of(data), (Strings{"a\tb|c", "d|e"}));
  EXPECT_EQ(data.labels, (Strings{"2", "3.5"}));
  EXPECT_TRUE(data.places[1].ends_with("d.jsonl:2"));
}

TEST(LabelledTexts, FindsColumnsByNameAndNumber) {
  const std::string file = "a\tb\tc\n1\t2\t3\n";
  const LabelledTexts chosen = read("d.tsv", file, {.text = "c", .pair = "0", .label = "1"});
  EXPECT_EQ(texts_of(chosen), Strings{"3|1"});
  EXPECT_EQ(chosen.labels, Strings{"2"});
  expect_error(ErrorCode::invalid_argument, "has no column 'd' (columns: a, b, c)",
               [&] { read("d.tsv", file, {.label = "d"}); });
  expect_error(ErrorCode::invalid_argument, "has no column '3'", [&] { read("d.tsv", file, {.text = "3"}); });
}

TEST(LabelledTexts, TakesTheOnlyColumnThatCanBeTheTextAndNeverTheLabel) {
  for (const auto& [file, columns] :
       std::vector<std::pair<std::string, LabelledColumns>>{{"label,review\n1,good film\n", {}},
                                                            {"idx,label,review\n0,1,good film\n", {}},
                                                            {",review,stars\n0,good film,1\n", {.label = "stars"}},
                                                            {"review,sentence2,label\ngood film,x,1\n", {}},
                                                            {"text,review\n1,good film\n", {.label = "text"}}}) {
    const LabelledTexts data = read("d.csv", file, columns);
    EXPECT_EQ(data.inputs[0].text, "good film") << file;
    EXPECT_EQ(data.labels, Strings{"1"}) << file;
  }
  EXPECT_EQ(texts_of(read("d.jsonl", R"({"label": 1, "review": "good film"})")), Strings{"good film"});
  EXPECT_TRUE(read("d.tsv", "review\ngood\n").labels.empty());
  for (const char* file : {"label\n1\n", "label,title,review\n1,a,b\n"}) {
    expect_error(ErrorCode::format, "cannot be told which column is the text", [&] { read("d.csv", file); });
  }
  expect_error(ErrorCode::format, "(columns: label, title, review)",
               [&] { read("d.csv", "label,title,review\n1,a,b"); });
}

TEST(LabelledTexts, NameTheLineThatIsWrong) {
  const auto broken = [](const std::string& name, const std::string& content, const std::string& fragment) {
    expect_error(ErrorCode::format, fragment, [&] { read(name, content); });
  };
  broken("d.tsv", "", "has no rows of texts");
  broken("d.tsv", "text\tlabel\n", "has no rows of texts");
  broken("d.tsv", "text\tlabel\nfine\t1\nalone\n", "d.tsv:3: has 1 fields, column 1 is missing");
  broken("d.csv", "label,text\n0,bad\n1,good, truly good\n", "d.csv:3: has 3 fields, expected 2; in CSV");
  broken("d.tsv", "text\tlabel\nfine\t1\t\n", "d.tsv:2: has 3 fields, expected 2");
  broken("d.csv", "text,label\n\"a\nb\",1\n\"open,1\n", "d.csv:4: a quoted field does not end");
  broken("d.csv", "text,label\n\"a\"b,1\n", "d.csv:2: text after a quoted field");
  broken("d.jsonl", "{\"text\": \"a\"}\n{\"text\": [1]}\n", "d.jsonl:2: has no \"text\" that is a text or a number");
  broken("d.jsonl", "{\"text\": \"a\"}\n{\"other\": \"b\"}\n", "d.jsonl:2: has no \"text\"");
  broken("d.jsonl", "{\"text\": \"a\"}\n{\"text\": \n", "d.jsonl:2");
  broken("d.jsonl", "{\"n\": true}\n", "has no columns");
  // Members that are not used may be missing, and a number is no text.
  const TempFolder folder;
  const LabelledTexts odd = read_labelled_texts(
      folder
          .write("odd.jsonl",
                 "{\"review\": \"a\", \"label\": 1, \"score\": 0.5}\n{\"review\": \"b\", \"label\": 0, "
                 "\"score\": null}\n{\"review\": \"c\", \"label\": 0}\n")
          .string());
  EXPECT_EQ(odd.inputs.at(2).text, "c");
  broken("d.csv", "text,label\nna\xc3\xafve,1\nna\xefve,1\n", "d.csv:3: byte 3 of the line is not UTF-8");
}

}  // namespace
}  // namespace nibble
