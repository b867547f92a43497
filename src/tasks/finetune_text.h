#pragma once
// Texts with a mask: what a line of training data is made into tokens by.
#include <optional>
#include <string>
#include <vector>

#include "tasks/finetune_data.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nibble {

/// A sample that grows piece by piece.
///
/// A piece is tokenized together with the text before it, as training tools do, unless that would change tokens that
/// are there already; then alone, as generation would see it.
class MaskedText {
 public:
  MaskedText(const Tokenizer& tokenizer, bool add_special_tokens)
      : tokenizer_(tokenizer), add_special_tokens_(add_special_tokens) {}

  void add(std::string_view piece, bool trained);
  void add_id(int32_t id, bool trained);
  const std::string& text() const { return text_; }
  TrainingSample take() { return std::move(sample_); }
  const std::vector<int32_t>& ids() const { return sample_.ids; }

 private:
  const Tokenizer& tokenizer_;
  bool add_special_tokens_;
  std::string text_;
  TrainingSample sample_;
};

/// Makes samples of the objects that lines of training data hold.
class SampleReader {
 public:
  explicit SampleReader(const LoadedModel& model);

  /// @param where  "FILE:LINE"
  TrainingSample read(const Json& object, const std::string& where) const;
  /// A text on its own.
  TrainingSample plain(const std::string& text) const;

 private:
  struct Row;
  static const Row kRows[];

  TrainingSample text(const Json& object, const std::string& where) const;
  TrainingSample completion(const Json& object, const std::string& where) const;
  TrainingSample alpaca(const Json& object, const std::string& where) const;
  TrainingSample messages(const Json& object, const std::string& where) const;
  TrainingSample sharegpt(const Json& object, const std::string& where) const;
  TrainingSample token_ids(const Json& object, const std::string& where) const;

  TrainingSample prompt_and_answer(const std::string& prompt, const std::string& answer) const;
  TrainingSample conversation(const Json::Array& messages, size_t first_trained, const Json& object,
                              const std::string& where) const;

  const LoadedModel& model_;
  std::optional<ChatTemplate> template_;
  Json variables_;
  std::optional<int32_t> eos_;
};

/// The list of ids, checked against the vocabulary. @param none  another value that is allowed
std::vector<int32_t> read_ids(const Json& list, const std::string& where, int64_t vocabulary,
                              std::optional<int32_t> none = std::nullopt);

}  // namespace nibble
