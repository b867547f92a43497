#include "text/token_lists.h"

#include "core/error.h"

namespace nibble {
namespace {

/// Json, with what a value of JsonText can do.
class Stored {
 public:
  explicit Stored(const Json& json) : json_(&json) {}

  bool is_null() const { return json_->is_null(); }
  bool is_array() const { return json_->is_array(); }
  std::string_view as_string(const std::string& where) const { return json_->as_string(where); }
  int64_t as_int(const std::string& where) const { return json_->as_int(where); }
  double as_double(const std::string& where) const { return json_->as_double(where); }
  std::optional<Stored> find(std::string_view key) const {
    const Json* found = json_->find(key);
    return found == nullptr ? std::nullopt : std::optional(Stored(*found));
  }
  size_t size() const {
    return json_->is_array() ? json_->as_array("").size() : json_->is_object() ? json_->as_object("").size() : 0;
  }
  template <class Visit>
  void for_each_member(const std::string& where, const Visit& visit) const {
    for (const auto& [key, value] : json_->as_object(where)) visit(key, Stored(value));
  }
  template <class Visit>
  void for_each_item(const std::string& where, const Visit& visit) const {
    for (const Json& item : json_->as_array(where)) visit(Stored(item));
  }

 private:
  const Json* json_;
};

MergePair parted(std::string_view text, const std::string& where) {
  const size_t space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos) {
    fail(ErrorCode::format, where + ": '" + printable(text, 100) + "' is not two tokens with a space between");
  }
  return {text.substr(0, space), text.substr(space + 1)};
}

// A merge is "left right" or ["left", "right"].
template <class Value>
MergePair merge_pair(const Value& merge, const std::string& where) {
  if (!merge.is_array()) return parted(merge.as_string(where), where);
  std::string_view tokens[2];
  size_t count = 0;
  merge.for_each_item(where, [&](const Value& token) {
    if (count < 2) tokens[count] = token.as_string(where);
    ++count;
  });
  if (count != 2) fail(ErrorCode::format, where + ": a merge of " + std::to_string(count) + " tokens");
  return {tokens[0], tokens[1]};
}

// Of Unigram: [token, score].
template <class Value>
TokenEntry scored_token(const Value& item, int64_t id, const std::string& where) {
  TokenEntry entry = {.text = {}, .id = id};
  size_t count = 0;
  item.for_each_item(where, [&](const Value& part) {
    if (count == 0) entry.text = part.as_string(where);
    if (count == 1) entry.score = part.as_double(where);
    ++count;
  });
  if (count != 2) fail(ErrorCode::format, where + ": expected [token, score]");
  return entry;
}

template <class Value>
TokenLists lists_of(const Value& model, const std::string& where) {
  TokenLists lists;
  const std::string vocab_where = where + ".vocab", merges_where = where + ".merges";
  const auto vocab = model.find("vocab"), merges = model.find("merges");
  if (vocab) {
    lists.vocab.emplace().reserve(vocab->size());
    lists.has_scores = vocab->is_array();
  }
  if (vocab && lists.has_scores) {
    vocab->for_each_item(vocab_where, [&](const Value& item) {
      const auto id = static_cast<int64_t>(lists.vocab->size());
      lists.vocab->push_back(scored_token(item, id, vocab_where + "[" + std::to_string(id) + "]"));
    });
  } else if (vocab) {
    vocab->for_each_member(vocab_where, [&](std::string_view token, const Value& id) {
      lists.vocab->push_back({token, id.as_int(vocab_where)});
    });
  }
  if (merges && !merges->is_null()) {
    lists.merges.emplace().reserve(merges->size());
    merges->for_each_item(merges_where,
                          [&](const Value& merge) { lists.merges->push_back(merge_pair(merge, merges_where)); });
  }
  return lists;
}

}  // namespace

TokenLists token_lists(const Json& model, const std::string& where) { return lists_of(Stored(model), where); }
TokenLists token_lists(JsonText::Value model, const std::string& where) { return lists_of(model, where); }

}  // namespace nibble
