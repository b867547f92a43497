// Unigram: of all ways to cut a word into tokens, the one whose log probabilities have the largest sum (Viterbi over
// byte positions). Neighbouring unknown characters become one unknown token, or byte tokens.
#include <algorithm>
#include <limits>

#include "text/json_fields.h"
#include "text/prefix_index.h"
#include "text/token_model.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr double kUnknownPenalty = 10.0;  // below the rarest token; SentencePiece's unigram_model.cc

struct Unigram {
  std::shared_ptr<const Vocabulary> vocabulary;
  PrefixIndex index;
  std::vector<double> scores;  // by id
  std::vector<int32_t> byte_ids;
  std::optional<int32_t> unknown;
  double unknown_score = 0;
};

// The best way to reach a byte position.
struct Node {
  double score = 0;
  size_t from = 0;
  int32_t id = -1;  // -1: not reached yet
};

void improve(Node& node, double score, size_t from, int32_t id) {
  if (node.id < 0 || score > node.score) node = {score, from, id};
}

std::vector<Node> best_paths(const Unigram& model, std::string_view word) {
  std::vector<Node> nodes(word.size() + 1);
  for (size_t at = 0; at < word.size(); at += char_bytes(word[at])) {
    const size_t one_char = char_bytes(word[at]);
    bool has_char = false;
    model.index.for_each_at(word, at, [&](size_t length, int32_t id) {
      improve(nodes[at + length], nodes[at].score + model.scores[static_cast<size_t>(id)], at, id);
      has_char = has_char || length == one_char;
    });
    if (has_char) continue;
    if (!model.unknown) fail_unknown_word(word.substr(at, one_char));
    improve(nodes[at + one_char], nodes[at].score + model.unknown_score, at, *model.unknown);
  }
  return nodes;
}

// A stretch of unknown characters: a token after all (the fused text may be one), bytes, or the unknown token.
void append_unknown(const Unigram& model, std::string_view text, std::vector<int32_t>& ids) {
  if (const auto id = model.vocabulary->id(text)) {
    ids.push_back(*id);
  } else if (model.byte_ids.empty() || !append_bytes(text, model.byte_ids, ids)) {
    ids.push_back(*model.unknown);
  }
}

void encode(const Unigram& model, std::string_view word, std::vector<int32_t>& ids) {
  const std::vector<Node> nodes = best_paths(model, word);
  std::vector<size_t> ends;  // of the tokens on the best path, last first
  for (size_t end = word.size(); end > 0; end = nodes[end].from) ends.push_back(end);
  size_t unknown_begin = 0, unknown_end = 0;
  const auto flush = [&] {
    if (unknown_end > unknown_begin)
      append_unknown(model, word.substr(unknown_begin, unknown_end - unknown_begin), ids);
  };
  for (auto end = ends.rbegin(); end != ends.rend(); ++end) {
    const Node& node = nodes[*end];
    if (node.id == model.unknown) {
      if (unknown_end != node.from || unknown_end == unknown_begin) unknown_begin = node.from;
      unknown_end = *end;
      continue;
    }
    flush();
    unknown_begin = unknown_end = *end;
    ids.push_back(node.id);
  }
  flush();
}

}  // namespace

TokenModel parse_unigram(const Json& json, const TokenLists& lists, const std::string& where) {
  auto unigram = std::make_shared<Unigram>();
  const std::vector<TokenEntry>& entries = required_vocab(lists, true, where);
  std::vector<PrefixIndex::Entry> keys;
  double lowest = std::numeric_limits<double>::infinity();
  for (const TokenEntry& entry : entries) {
    keys.emplace_back(entry.text, static_cast<int32_t>(entry.id));
    unigram->scores.push_back(entry.score);
    lowest = std::min(lowest, entry.score);
  }
  if (const Json* unknown = json.find_value("unk_id")) {
    const int64_t id = unknown->as_int(where + ".unk_id");
    if (id < 0 || id >= static_cast<int64_t>(entries.size())) {
      fail(ErrorCode::format,
           where + ".unk_id: found " + std::to_string(id) + ", expected less than " + std::to_string(entries.size()));
    }
    unigram->unknown = static_cast<int32_t>(id);
  }
  unigram->unknown_score = lowest - kUnknownPenalty;
  unigram->vocabulary = std::make_shared<const Vocabulary>(entries, where + ".vocab");
  unigram->index = PrefixIndex(std::move(keys));
  if (bool_or(json, "byte_fallback", false, where)) unigram->byte_ids = byte_token_ids(*unigram->vocabulary);
  TokenModel model;
  model.vocabulary = unigram->vocabulary;
  model.encode = [unigram](std::string_view word, std::vector<int32_t>& ids) { encode(*unigram, word, ids); };
  return model;
}

}  // namespace nibble
