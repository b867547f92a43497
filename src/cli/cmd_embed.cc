#include <fmt/format.h>

#include <optional>

#include "cli/commands.h"
#include "cli/model_args.h"
#include "cli/npy.h"
#include "cli/print.h"
#include "core/error.h"
#include "core/limits.h"
#include "nibble/embed.h"
#include "text/text_file.h"

namespace nibble::cli {
namespace {

constexpr size_t kShownValues = 4;

/// The lines of a file; a last line without an end counts, empty lines in between do too.
std::vector<std::string> lines_of(const std::string& path) {
  const std::string text = read_utf8_file(path, limits::kMaxJsonBytes);
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    if (lines.back().ends_with('\r')) lines.back().pop_back();
    begin = end + 1;
  }
  if (lines.empty()) fail(ErrorCode::format, path + ": is empty, expected one text per line");
  return lines;
}

void print_vectors(const std::vector<std::vector<float>>& vectors) {
  for (const std::vector<float>& v : vectors) {
    std::string line = " ";
    for (size_t i = 0; i < v.size() && i < kShownValues; ++i) line += fmt::format(" {:9.6f}", v[i]);
    print_line(line + fmt::format("  ... [{}]", v.size()));
  }
}

Json to_json(const std::vector<std::vector<float>>& vectors) {
  Json list = Json::array();
  for (const std::vector<float>& v : vectors) {
    Json values = Json::array();
    for (const float x : v) values.push_back(x);
    list.push_back(std::move(values));
  }
  return Json::object({{"embeddings", std::move(list)}});
}

}  // namespace

int cmd_embed(const Arguments& arguments) {
  Common common;
  ModelArgs model_args;
  std::vector<std::string> texts;
  std::optional<std::string> file;
  std::string npy;
  Args args("embed", "Vectors for sentences, to compare by their scalar product.",
            "  nibble embed all-minilm-l6 --text \"A man is eating.\" --text \"Somebody has lunch.\" --json\n"
            "  nibble embed all-minilm-l6 --format int8-dynamic --file sentences.txt --npy vectors.npy");
  model_args.declare(args);
  args.list("--text", texts, "TEXT", "a sentence; may be repeated");
  args.option("--file", file, "FILE", "one sentence per line");
  args.option("--npy", npy, "FILE", "write the vectors as float32 [sentences, width]");
  common.declare(args);
  if (!args.parse(arguments)) return 0;
  common.apply();
  if (texts.empty() == !file.has_value()) {
    fail(ErrorCode::invalid_argument, "give the sentences with either --text or --file");
  }
  if (file) texts = lines_of(*file);
  const JsonReport json;
  const SentenceTransformer model = model_args.load<SentenceTransformer>(common);
  const std::vector<std::vector<float>> vectors = model.embed(texts, {.progress = progress_bar(common)});
  if (!npy.empty()) {
    std::vector<float> values;
    for (const std::vector<float>& v : vectors) values.insert(values.end(), v.begin(), v.end());
    write_npy(npy, values, {static_cast<int64_t>(vectors.size()), static_cast<int64_t>(vectors[0].size())});
  }
  if (common.json) {
    json.print(model_args.model, to_json(vectors));
  } else if (npy.empty()) {
    print_vectors(vectors);
  }
  return 0;
}

}  // namespace nibble::cli
