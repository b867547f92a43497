// Byte-pair encoding: a word begins as its characters; of all neighbours that the merge list has, the pair that stands
// first in the list is joined, leftmost first, until none is left. A heap of candidate pairs over a linked list of
// symbols makes that O(n log n).
#include <algorithm>
#include <functional>
#include <utility>

#include "core/hash_index.h"
#include "text/json_fields.h"
#include "text/token_model.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";

struct Merge {
  int32_t left, right;  // ids
  int32_t id;           // what they become
};

/// A list in which the first that fits counts, and of two for one pair the later.
class Merges {
  static uint64_t pair_key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  auto joins(int32_t left, int32_t right) const {
    return [this, left, right](int32_t rank) {
      const Merge& merge = list_[static_cast<size_t>(rank)];
      return merge.left == left && merge.right == right;
    };
  }

 public:
  Merges() = default;
  explicit Merges(size_t count) : index_(count) { list_.reserve(count); }

  void add(const Merge& merge) {
    const auto rank = static_cast<int32_t>(list_.size());
    list_.push_back(merge);
    index_.put(hash_of(pair_key(merge.left, merge.right)), rank, joins(merge.left, merge.right));
  }
  /// -1: there is none.
  int32_t rank(int32_t left, int32_t right) const {
    return index_.find(hash_of(pair_key(left, right)), joins(left, right));
  }
  int32_t id(int32_t rank) const { return list_[static_cast<size_t>(rank)].id; }

 private:
  std::vector<Merge> list_;
  HashIndex index_;
};

struct Bpe {
  std::shared_ptr<const Vocabulary> vocabulary;
  Merges merges;
  std::vector<int32_t> byte_ids;  // empty without byte_fallback
  std::optional<int32_t> unknown;
  std::string prefix, suffix;  // of characters that do not begin, and that end, a word
  bool fuse_unknown = false, ignore_merges = false;
};

struct Symbol {
  int32_t id;             // -1: merged into a symbol on its left
  int32_t before, after;  // indices of the neighbours; -1: none
};

struct Candidate {
  int32_t rank, left;  // left: index of the left symbol
  bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
};

// The ids of single characters. An unknown one is held back until the next known one: that fuses neighbours, and also
// puts it behind byte tokens that follow, as the reference implementation does.
std::vector<int32_t> character_ids(const Bpe& bpe, std::string_view word) {
  std::vector<int32_t> ids;
  bool unknown_pending = false;
  const auto flush = [&] {
    if (std::exchange(unknown_pending, false)) ids.push_back(*bpe.unknown);
  };
  std::string decorated;
  for (size_t at = 0; at < word.size();) {
    std::string_view c = word.substr(at, char_bytes(word[at]));
    const bool first = at == 0;
    at += c.size();
    const bool last = at == word.size();
    if ((!first && !bpe.prefix.empty()) || (last && !bpe.suffix.empty())) {
      decorated = (first ? "" : bpe.prefix) + std::string(c) + (last ? bpe.suffix : "");
      c = decorated;
    }
    if (const auto id = bpe.vocabulary->id(c)) {
      flush();
      ids.push_back(*id);
    } else if (!bpe.byte_ids.empty() && append_bytes(c, bpe.byte_ids, ids)) {
      continue;
    } else if (bpe.unknown) {
      if (!bpe.fuse_unknown) flush();
      unknown_pending = true;
    }  // without an unknown token the character is dropped
  }
  flush();
  return ids;
}

void merge_symbols(const Bpe& bpe, std::vector<int32_t>& ids) {
  std::vector<Symbol> symbols;
  symbols.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto index = static_cast<int32_t>(i);
    symbols.push_back({ids[i], index - 1, i + 1 < ids.size() ? index + 1 : -1});
  }
  const auto at = [&](int32_t index) -> Symbol& { return symbols[static_cast<size_t>(index)]; };
  const auto rank_of = [&](int32_t left) {
    const Symbol& symbol = at(left);
    return bpe.merges.rank(symbol.id, at(symbol.after).id);
  };
  std::vector<Candidate> candidates;
  const auto add = [&](int32_t left) {
    if (left < 0 || at(left).after < 0) return false;
    const int32_t rank = rank_of(left);
    if (rank >= 0) candidates.push_back({rank, left});
    return rank >= 0;
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) add(static_cast<int32_t>(i));
  std::make_heap(candidates.begin(), candidates.end(), std::greater<>());
  const auto push = [&](int32_t left) {
    if (add(left)) std::push_heap(candidates.begin(), candidates.end(), std::greater<>());
  };
  while (!candidates.empty()) {
    std::pop_heap(candidates.begin(), candidates.end(), std::greater<>());
    const Candidate best = candidates.back();
    candidates.pop_back();
    Symbol& left = at(best.left);
    if (left.id < 0 || left.after < 0) continue;
    const int32_t rank = rank_of(best.left);  // a neighbour may have changed meanwhile
    if (rank < 0 || bpe.merges.id(rank) != bpe.merges.id(best.rank)) continue;
    Symbol& right = at(left.after);
    left.id = bpe.merges.id(rank);
    right.id = -1;
    left.after = right.after;
    if (right.after >= 0) at(right.after).before = best.left;
    push(left.before);
    push(best.left);
  }
  ids.clear();
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

void encode(const Bpe& bpe, std::string_view word, std::vector<int32_t>& out) {
  if (bpe.ignore_merges) {
    if (const auto id = bpe.vocabulary->id(word)) return out.push_back(*id);
  }
  std::vector<int32_t> ids = character_ids(bpe, word);
  if (ids.size() > 1) merge_symbols(bpe, ids);
  out.insert(out.end(), ids.begin(), ids.end());
}

// Fills bpe.merges; returns whether words can be cut in front of space marks.
bool add_merges(Bpe& bpe, const std::vector<MergePair>& list, const std::string& where) {
  const auto id_of = [&](std::string_view token, int32_t guess, size_t i) {
    const auto id = bpe.vocabulary->id(token, guess);
    if (!id) {
      fail(ErrorCode::format,
           where + "[" + std::to_string(i) + "]: token '" + printable(token, 100) + "' is not in the vocabulary");
    }
    return *id;
  };
  bool cut = bpe.prefix.empty() && bpe.suffix.empty() && bpe.vocabulary->id(kSpaceMark).has_value();
  bpe.merges = Merges(list.size());
  std::string joined;
  Merge merge = {.left = -1, .right = -1, .id = -1};
  for (size_t i = 0; i < list.size(); ++i) {
    const auto [left, right] = list[i];
    if (right.size() < bpe.prefix.size()) fail(ErrorCode::format, where + ": a token lacks the continuation prefix");
    joined.assign(left).append(right.substr(bpe.prefix.size()));
    // Most tokens were added to the vocabulary in the order of the merges that make them.
    merge = {id_of(left, -1, i), id_of(right, -1, i), id_of(joined, merge.id + 1, i)};
    bpe.merges.add(merge);
    cut = cut && (!right.starts_with(kSpaceMark) || left.ends_with(kSpaceMark));
  }
  return cut;
}

}  // namespace

TokenModel parse_bpe(const Json& json, const TokenLists& lists, const std::string& where) {
  auto bpe = std::make_shared<Bpe>();
  bpe->vocabulary = vocabulary_of(lists, where);
  bpe->prefix = string_or(json, "continuing_subword_prefix", "", where);
  bpe->suffix = string_or(json, "end_of_word_suffix", "", where);
  bpe->fuse_unknown = bool_or(json, "fuse_unk", false, where);
  bpe->ignore_merges = bool_or(json, "ignore_merges", false, where);
  if (bool_or(json, "byte_fallback", false, where)) bpe->byte_ids = byte_token_ids(*bpe->vocabulary);
  bpe->unknown = bpe->vocabulary->id(string_or(json, "unk_token", "", where));
  if (!lists.merges) fail(ErrorCode::format, where + ": no member 'merges'");
  const bool cut = add_merges(*bpe, *lists.merges, where + ".merges");
  TokenModel model;
  model.vocabulary = bpe->vocabulary;
  // A whole run of words that is itself a token must not be cut.
  if (cut && !bpe->ignore_merges) model.word_start = kSpaceMark;
  model.encode = [bpe](std::string_view word, std::vector<int32_t>& ids) { encode(*bpe, word, ids); };
  return model;
}

}  // namespace nibble
