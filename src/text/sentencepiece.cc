#include "text/sentencepiece.h"

#include <bit>

#include "core/limits.h"
#include "text/json_fields.h"
#include "text/spm_vocabulary.h"
#include "text/unicode.h"

namespace nibble {
namespace {

// Reads the fields of one protobuf message. A field begins with the varint (number << 3 | wire type); wire types: 0
// varint, 1 eight bytes, 2 varint length and bytes, 5 four bytes.
class MessageReader {
 public:
  MessageReader(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  bool next() {
    if (at_ == bytes_.size()) return false;
    const uint64_t key = varint();
    field = key >> 3;
    wire_type = key & 7;
    number = 0;
    body = {};
    if (wire_type == 0) {
      number = varint();
    } else if (wire_type == 1 || wire_type == 5) {
      body = take(wire_type == 1 ? 8 : 4);
      for (size_t i = body.size(); i-- > 0;) number = number << 8 | static_cast<unsigned char>(body[i]);
    } else if (wire_type == 2) {
      body = take(varint());
    } else {
      fail(ErrorCode::format, where_ + ": wire type " + std::to_string(wire_type) + " at byte " + std::to_string(at_));
    }
    return true;
  }

  /// Checks the wire type of the field just read.
  void expect(uint64_t type) const {
    if (wire_type == type) return;
    fail(ErrorCode::format, where_ + ": field " + std::to_string(field) + " has wire type " +
                                std::to_string(wire_type) + ", expected " + std::to_string(type));
  }

  uint64_t field = 0, wire_type = 0, number = 0;
  std::string_view body;

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && at_ < bytes_.size(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<uint64_t>(byte & 0x7fu) << shift;
      if (byte < 0x80) return value;
    }
    fail(ErrorCode::format, where_ + ": a number is cut off at byte " + std::to_string(at_));
  }

  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - at_) {
      fail(ErrorCode::format, where_ + ": a field of " + std::to_string(count) + " bytes at byte " +
                                  std::to_string(at_) + " of " + std::to_string(bytes_.size()));
    }
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }

  std::string_view bytes_;
  std::string where_;
  size_t at_ = 0;
};

// SentencePiece { 1: piece, 2: score, 3: type }
void read_piece(std::string_view bytes, SpmVocabulary& vocabulary, const std::string& where) {
  const std::string place = where + ": piece " + std::to_string(vocabulary.tokens.size());
  std::string piece;
  float score = 0;
  auto type = TokenType::normal;
  for (MessageReader reader(bytes, place); reader.next();) {
    if (reader.field == 1) {
      reader.expect(2);
      piece = reader.body;
    } else if (reader.field == 2) {
      reader.expect(5);
      score = std::bit_cast<float>(static_cast<uint32_t>(reader.number));
    } else if (reader.field == 3) {
      reader.expect(0);
      type = to_token_type(static_cast<int64_t>(reader.number), place);
    }
  }
  if (!is_valid_utf8(piece)) fail(ErrorCode::format, place + ": not UTF-8");
  if (!(score > -1e30f && score < 1e30f)) fail(ErrorCode::format, place + ": the score is not finite");
  vocabulary.tokens.push_back(std::move(piece));
  vocabulary.scores.push_back(score);
  vocabulary.types.push_back(type);
}

struct TrainerSpec {
  uint64_t model_type = 1;  // 1 unigram, 2 BPE, 3 word, 4 char
  int64_t unknown = 0, bos = 1, eos = 2;
};

// TrainerSpec { 3: model_type, 40: unk_id, 41: bos_id, 42: eos_id }; negative ids are written in 64 bits.
TrainerSpec read_trainer(std::string_view bytes, const std::string& where) {
  TrainerSpec spec;
  for (MessageReader reader(bytes, where + ": trainer_spec"); reader.next();) {
    const auto number = static_cast<int64_t>(reader.number);
    if (reader.field == 3) spec.model_type = reader.number;
    if (reader.field == 40) spec.unknown = number;
    if (reader.field == 41) spec.bos = number;
    if (reader.field == 42) spec.eos = number;
  }
  return spec;
}

// NormalizerSpec { 2: precompiled_charsmap, 3: add_dummy_prefix, 4: remove_extra_whitespaces }
void read_normalizer(std::string_view bytes, SpmVocabulary& vocabulary, const std::string& where) {
  for (MessageReader reader(bytes, where + ": normalizer_spec"); reader.next();) {
    if (reader.field == 2) vocabulary.charsmap = reader.body;
    if (reader.field == 3) vocabulary.add_space_prefix = reader.number != 0;
    if (reader.field == 4) vocabulary.remove_extra_spaces = reader.number != 0;
  }
}

// These shift the ids of the file by a few (fairseq's numbering) or add languages.
void refuse_renumbering(const Json& config, const std::string& where) {
  const std::string name = string_or(config, "tokenizer_class", "", where);
  for (const std::string_view family : {"XLMRoberta", "Camembert", "MBart", "NllB", "Nllb", "M2M100", "Barthez",
                                        "Plbart", "PLBart", "Speech2Text", "BigBird", "Pegasus", "Reformer", "XGLM"}) {
    if (name.starts_with(family)) {
      fail(ErrorCode::unsupported, where + ": " + printable(name, 100) + " numbers its tokens differently from " +
                                       "tokenizer.model. Convert it to a tokenizer.json with transformers");
    }
  }
}

}  // namespace

Json tokenizer_json_from_sentencepiece(std::string_view bytes, const Json& config, const std::string& where) {
  refuse_renumbering(config, where);
  SpmVocabulary vocabulary;
  vocabulary.remove_extra_spaces = true;
  TrainerSpec trainer;
  for (MessageReader reader(bytes, where); reader.next();) {
    if (reader.field < 1 || reader.field > 3) continue;
    reader.expect(2);
    if (reader.field == 1) read_piece(reader.body, vocabulary, where);
    if (reader.field == 2) trainer = read_trainer(reader.body, where);
    if (reader.field == 3) read_normalizer(reader.body, vocabulary, where);
  }
  const auto count = static_cast<int64_t>(vocabulary.tokens.size());
  if (count == 0) fail(ErrorCode::format, where + ": no pieces; is this a SentencePiece model?");
  if (count > limits::kMaxVocabulary) fail(ErrorCode::format, where + ": " + std::to_string(count) + " pieces");
  if (trainer.model_type != 1 && trainer.model_type != 2) {
    fail(ErrorCode::unsupported,
         where + ": model type " + std::to_string(trainer.model_type) + ". Known: 1 (unigram), 2 (BPE)");
  }
  const bool bpe = trainer.model_type == 2;
  vocabulary.kind = bpe ? SpmVocabulary::Kind::bpe : SpmVocabulary::Kind::unigram;
  const auto id_if = [&](bool wanted, int64_t id) {
    return wanted && id >= 0 && id < count ? std::optional(id) : std::nullopt;
  };
  vocabulary.unknown = id_if(true, trainer.unknown);
  vocabulary.bos = id_if(bool_or(config, "add_bos_token", bpe, where), trainer.bos);
  vocabulary.eos = id_if(bool_or(config, "add_eos_token", !bpe, where), trainer.eos);
  return tokenizer_json_from_spm(vocabulary, where);
}

}  // namespace nibble
