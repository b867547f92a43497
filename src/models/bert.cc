// The BERT family (arXiv 1810.04805): absolute positions, LayerNorm after each half of a block, attention in both
// directions. DistilBERT and RoBERTa differ by what the rows of kFamilies say.
//
//   h = norm(word(ids) + type(segments) + position(0 ...))
//   for each block:  h = norm(h + o(attention(q(h), k(h), v(h))));  h = norm(h + down(gelu(up(h))))
//   classifier: out(tanh(dense(first row of each sequence)))
#include "models/bert.h"

#include <cmath>
#include <optional>

#include "core/error.h"
#include "models/blocks.h"
#include "models/encoder_config.h"
#include "ops/attention.h"
#include "ops/elementwise.h"
#include "ops/linear.h"

namespace nibble {
namespace {

struct Family {
  std::string_view model_type;
  std::string_view class_prefix;  // of the names in "architectures"
  std::string_view prefix;        // of the weights, when the encoder is part of a larger model
  EncoderKeys keys;
  bool token_types;       // words carry a segment
  bool positions_by_pad;  // positions count from pad_token_id + 1, and padding has position pad_token_id
  // Modules of a block.
  std::string_view blocks, q, k, v, o, attention_norm, up, down, output_norm;
  // The two layers of a classifier. `dense` is part of the encoder ("pooler.dense") or of the head.
  std::string_view dense, out;
  bool dense_in_encoder;
  Activation dense_activation;
  std::string_view pooler;  // of an encoder that stands alone; "" = the family has none
};

constexpr EncoderKeys kBertKeys = {.hidden_size = "hidden_size",
                                   .intermediate_size = "intermediate_size",
                                   .layers = "num_hidden_layers",
                                   .heads = "num_attention_heads",
                                   .activation = "hidden_act"};

constexpr Family kBert = {.model_type = "bert",
                          .class_prefix = "Bert",
                          .prefix = "bert.",
                          .keys = kBertKeys,
                          .token_types = true,
                          .positions_by_pad = false,
                          .blocks = "encoder.layer.",
                          .q = ".attention.self.query",
                          .k = ".attention.self.key",
                          .v = ".attention.self.value",
                          .o = ".attention.output.dense",
                          .attention_norm = ".attention.output.LayerNorm",
                          .up = ".intermediate.dense",
                          .down = ".output.dense",
                          .output_norm = ".output.LayerNorm",
                          .dense = "pooler.dense",
                          .out = "classifier",
                          .dense_in_encoder = true,
                          .dense_activation = Activation::tanh,
                          .pooler = "pooler.dense"};

constexpr Family roberta() {
  Family f = kBert;
  f.model_type = "roberta";
  f.class_prefix = "Roberta";
  f.prefix = "roberta.";
  f.positions_by_pad = true;
  f.dense = "classifier.dense";
  f.out = "classifier.out_proj";
  f.dense_in_encoder = false;
  return f;
}

constexpr Family kFamilies[] = {kBert,
                                roberta(),
                                {.model_type = "distilbert",
                                 .class_prefix = "DistilBert",
                                 .prefix = "distilbert.",
                                 .keys = {.hidden_size = "dim",
                                          .intermediate_size = "hidden_dim",
                                          .layers = "n_layers",
                                          .heads = "n_heads",
                                          .activation = "activation"},
                                 .token_types = false,
                                 .positions_by_pad = false,
                                 .blocks = "transformer.layer.",
                                 .q = ".attention.q_lin",
                                 .k = ".attention.k_lin",
                                 .v = ".attention.v_lin",
                                 .o = ".attention.out_lin",
                                 .attention_norm = ".sa_layer_norm",
                                 .up = ".ffn.lin1",
                                 .down = ".ffn.lin2",
                                 .output_norm = ".output_layer_norm",
                                 .dense = "pre_classifier",
                                 .out = "classifier",
                                 .dense_in_encoder = false,
                                 .dense_activation = Activation::relu,
                                 .pooler = ""}};

/// "Bert" + ... of "architectures": these run; ForMaskedLM runs without its head, for the vectors.
constexpr std::string_view kHeadless[] = {"Model", "ForMaskedLM"};

bool is_classifier(const ConfigReader& config, const Family& family) {
  const std::string name = architecture_of(config), start(family.class_prefix);
  if (name.empty()) return false;
  if (name == start + std::string(kClassifierClass)) return true;
  for (const std::string_view end : kHeadless) {
    if (name == start + std::string(end)) return false;
  }
  fail(ErrorCode::unsupported, config.at("architectures") + ": '" + printable(name, 100) +
                                   "' is not supported (known: " + start + "Model, " + start +
                                   std::string(kClassifierClass) + ")");
}

struct Block {
  Linear q, k, v, o, up, down;
  Norm attention_norm, output_norm;
};

ModelInfo encoder_info(const ConfigReader& config, const Family& family, const EncoderShape& shape) {
  ModelInfo info;
  info.model_type = family.model_type;
  info.architecture = architecture_of(config);
  info.vocab_size = shape.vocab_size;
  info.context_length = shape.positions - (family.positions_by_pad ? shape.pad_token_id + 1 : 0);
  info.layers = shape.layers;
  info.heads = info.kv_heads = shape.heads;
  info.head_dim = shape.hidden_size / shape.heads;
  info.is_encoder = true;
  if (is_classifier(config, family)) info.labels = read_labels(config);
  if (info.context_length < 1) {
    fail(ErrorCode::format, config.at("max_position_embeddings") + ": leaves no position after pad_token_id");
  }
  return info;
}

constexpr const char* kWords = "word_embeddings";
constexpr const char* kPositions = "position_embeddings";
constexpr const char* kTypes = "token_type_embeddings";

class Bert final : public Model {
 public:
  Bert(const ConfigReader& config, const Family& family, const EncoderShape& shape, Loader& loader)
      : Model(encoder_info(config, family, shape)), family_(family), shape_(shape), compute_(loader.compute()) {
    const std::string prefix = find_prefix(loader);
    const std::string at = prefix + "embeddings.";
    words_ = loader.embedding(at + kWords, shape.vocab_size, shape.hidden_size);
    positions_ = loader.embedding(at + kPositions, shape.positions, shape.hidden_size);
    if (family.token_types) {
      types_ = loader.embedding(at + kTypes, shape.token_types, shape.hidden_size);
    }
    norm_ = load_norm(at + "LayerNorm", loader);
    for (int64_t i = 0; i < shape.layers; ++i) {
      blocks_.push_back(load_block(prefix + std::string(family.blocks) + std::to_string(i), loader));
    }
    load_head(prefix, loader);
  }

  Tensor hidden(const Batch& batch, KvCache* cache, Tape* tape) const override {
    if (cache) fail(ErrorCode::internal, "an encoder has no cache");
    const std::vector<int64_t> lengths = checked_lengths(batch);
    Tensor h = embed(batch, lengths, tape);
    if (tape) tape->keep("hidden.0", h);
    for (size_t i = 0; i < blocks_.size(); ++i) {
      h = checkpoint(h, tape, [this, i, lengths](const Tensor& x, Tape* block_tape) {
        return run_block(blocks_[i], x, lengths, block_tape);
      });
      if (tape) tape->keep("hidden." + std::to_string(i + 1), h);
    }
    return h;
  }

  Tensor logits(const Tensor& first_rows, Tape* tape) const override {
    if (!out_) fail(ErrorCode::unsupported, info().architecture + ": the model has no classifier");
    Tensor h = activate(family_.dense_activation, linear(first_rows, *dense_, compute_, tape), tape);
    return linear(h, *out_, compute_, tape);
  }

  void visit(ParameterVisitor& visitor) override {
    visitor.embedding(words_);
    visitor.embedding(positions_);
    if (family_.token_types) visitor.embedding(types_);
    nibble::visit(visitor, norm_);
    for (Block& b : blocks_) {
      for (Linear* layer : {&b.q, &b.k, &b.v, &b.o}) visitor.linear(*layer);
      nibble::visit(visitor, b.attention_norm);
      visitor.linear(b.up);
      visitor.linear(b.down);
      nibble::visit(visitor, b.output_norm);
    }
    if (!out_) return;
    visitor.linear(*dense_);
    visitor.linear(*out_);
  }

 private:
  /// "bert." or "": encoders that stand alone are mostly stored without it, whatever their class.
  std::string find_prefix(const Loader& loader) const {
    const std::string prefix(family_.prefix);
    const std::string probe = "embeddings.word_embeddings.weight";
    const bool alone_first = !info().architecture.ends_with(kClassifierClass);
    if (alone_first) return loader.has(probe) ? "" : prefix;
    return loader.has(prefix + probe) || !loader.has(probe) ? prefix : "";
  }

  Norm load_norm(const std::string& module, Loader& loader) const {
    return load_layer_norm(loader, module, shape_.hidden_size, shape_.layer_norm_eps);
  }

  Block load_block(const std::string& at, Loader& loader) const {
    const int64_t hidden = shape_.hidden_size, inner = shape_.intermediate_size;
    const auto layer = [&](std::string_view name, int64_t out, int64_t in) {
      return loader.linear(at + std::string(name), out, in, Loader::Bias::yes);
    };
    Block b;
    b.q = layer(family_.q, hidden, hidden);
    b.k = layer(family_.k, hidden, hidden);
    b.v = layer(family_.v, hidden, hidden);
    b.o = layer(family_.o, hidden, hidden);
    b.attention_norm = load_norm(at + std::string(family_.attention_norm), loader);
    b.up = layer(family_.up, inner, hidden);
    b.down = layer(family_.down, hidden, inner);
    b.output_norm = load_norm(at + std::string(family_.output_norm), loader);
    return b;
  }

  void load_head(const std::string& prefix, Loader& loader) {
    const int64_t hidden = shape_.hidden_size, labels = static_cast<int64_t>(info().labels.size());
    if (labels == 0) {
      // Nothing uses it here, but a quantized copy has to hold it as every other layer.
      const std::string pooler = prefix + std::string(family_.pooler);
      if (!family_.pooler.empty() && loader.has(pooler + ".weight")) {
        loader.linear(pooler, hidden, hidden, Loader::Bias::yes);
      }
      return;
    }
    const std::string dense = (family_.dense_in_encoder ? prefix : "") + std::string(family_.dense);
    dense_ = family_.dense_in_encoder ? loader.linear(dense, hidden, hidden, Loader::Bias::yes)
                                      : loader.head(dense, hidden, hidden, Loader::Bias::yes);
    out_ = loader.head(std::string(family_.out), labels, hidden, Loader::Bias::yes);
  }

  std::vector<int64_t> checked_lengths(const Batch& batch) const {
    const auto tokens = static_cast<int64_t>(batch.ids.size());
    const std::vector<int64_t> lengths = sequence_lengths(batch);
    for (const int64_t length : lengths) {
      if (length < 1 || length > info().context_length) {
        fail(ErrorCode::invalid_argument, "a sequence has " + std::to_string(length) + " tokens, expected 1 to " +
                                              std::to_string(info().context_length) + ", the model's positions");
      }
    }
    if (!batch.token_type_ids.empty() && batch.token_type_ids.size() != batch.ids.size()) {
      fail(ErrorCode::invalid_argument, "there are " + std::to_string(batch.token_type_ids.size()) +
                                            " token type ids for " + std::to_string(tokens) + " ids");
    }
    return lengths;
  }

  std::vector<int32_t> position_ids(const Batch& batch, const std::vector<int64_t>& lengths) const {
    std::vector<int32_t> positions;
    positions.reserve(batch.ids.size());
    const auto pad = static_cast<int32_t>(shape_.pad_token_id);
    for (const int64_t length : lengths) {
      int32_t next = family_.positions_by_pad ? pad + 1 : 0;
      for (int64_t t = 0; t < length; ++t) {
        const bool padding = family_.positions_by_pad && batch.ids[positions.size()] == pad;
        positions.push_back(padding ? pad : next++);
      }
    }
    return positions;
  }

  Tensor embed(const Batch& batch, const std::vector<int64_t>& lengths, Tape* tape) const {
    Tensor h = embedding(batch.ids, words_, tape);
    if (family_.token_types) {
      const std::vector<int32_t> zeros(batch.token_type_ids.empty() ? batch.ids.size() : 0);
      const std::span<const int32_t> types = zeros.empty() ? batch.token_type_ids : std::span(zeros);
      for (const int32_t type : types) {
        if (type < 0 || type >= shape_.token_types) {
          fail(ErrorCode::invalid_argument,
               "token type id " + std::to_string(type) + " is outside 0 to " + std::to_string(shape_.token_types - 1));
        }
      }
      h = add(std::move(h), embedding(types, types_, tape), tape);
    }
    h = add(std::move(h), embedding(position_ids(batch, lengths), positions_, tape), tape);
    return normalize(h, norm_, tape);
  }

  Tensor run_block(const Block& b, const Tensor& input, const std::vector<int64_t>& lengths, Tape* tape) const {
    const auto head_dim = static_cast<float>(shape_.hidden_size / shape_.heads);
    const auto project = [&](const Linear& layer, const Tensor& x) { return linear(x, layer, compute_, tape); };
    const std::vector<Tensor> qkv = linear_all(input, {&b.q, &b.k, &b.v}, compute_, tape);
    const Tensor mixed = bidirectional_attention(qkv[0], qkv[1], qkv[2], lengths,
                                                 {.heads = shape_.heads, .scale = 1.0f / std::sqrt(head_dim)}, tape);
    const Tensor h = normalize(add(project(b.o, mixed), input, tape), b.attention_norm, tape);
    const Tensor inner = activate(shape_.activation, project(b.up, h), tape);
    return normalize(add(project(b.down, inner), h, tape), b.output_norm, tape);
  }

  const Family& family_;
  EncoderShape shape_;
  ComputeOptions compute_;
  Embedding words_, positions_, types_;
  Norm norm_;
  std::vector<Block> blocks_;
  std::optional<Linear> dense_, out_;
};

}  // namespace

std::unique_ptr<Model> build_bert(const Json& json, const std::string& where, Loader& loader) {
  const ConfigReader config(json, where);
  const std::string type = config.text_or("model_type", "");
  for (const Family& family : kFamilies) {
    if (family.model_type != type) continue;
    return std::make_unique<Bert>(config, family, read_encoder_shape(config, family.keys), loader);
  }
  fail(ErrorCode::internal, "build_bert: " + type);
}

}  // namespace nibble
