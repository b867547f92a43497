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
/// are there already; then as the continuation that generation would write. Either way the ids decode to the text.
class MaskedText {
 public:
  /// @param add_special_tokens  begin with those that the tokenizer puts in front of a text
  MaskedText(const Tokenizer& tokenizer, bool add_special_tokens);

  void add(std::string_view piece, bool trained);
  void add_id(int32_t id, bool trained);
  TrainingSample take() { return std::move(sample_); }
  const std::vector<int32_t>& ids() const { return sample_.ids; }

 private:
  std::vector<int32_t> encode_open() const;
  void begin_open_at(size_t byte, size_t id);
  void close(size_t piece_bytes);

  const Tokenizer& tokenizer_;
  TrainingSample sample_;
  // What a piece is tokenized together with: the text from the last added token on, in front of which tokens do not
  // change any more. So the time is linear in the number of pieces.
  std::string open_;
  size_t open_ids_ = 0;   // where its ids begin
  bool at_start_ = true;  // it is the whole text
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

  /// With an end of the text, which is trained.
  TrainingSample ended(MaskedText& sample) const;
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
