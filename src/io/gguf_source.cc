#include "io/gguf_source.h"

#include <cstring>
#include <unordered_map>

#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_config.h"
#include "io/gguf_names.h"

namespace nibble {
namespace {

constexpr std::string_view kRopeFreqs = "rope_freqs.weight";
constexpr int64_t kMaxRopeFreqs = 65'536;

/// Where a tensor lies and what turns it into Hugging Face's.
struct Placement {
  size_t part = 0;  // position in the files
  std::string gguf_name;
  int64_t heads = 0;     // > 0: rows are pair-interleaved per head
  bool shifted = false;  // a norm stored as 1 + weight
  bool transposed = false;
};

/// The format stores row 2i + a of a head where Hugging Face has row a * half + i.
Tensor without_interleaving(const Tensor& stored, int64_t heads) {
  Tensor out(stored.dtype, stored.shape);
  const int64_t rows = stored.rows(), half = rows / heads / 2;
  const auto row_bytes = stored.bytes() / static_cast<size_t>(rows);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / (2 * half), in_head = row % (2 * half);
    const int64_t source = head * 2 * half + in_head % half * 2 + in_head / half;
    std::memcpy(out.raw() + static_cast<size_t>(row) * row_bytes,
                stored.raw() + static_cast<size_t>(source) * row_bytes, row_bytes);
  }
  return out;
}

Tensor minus_one(const Tensor& norm) {
  const Tensor wide = norm.cast(DType::f32);
  Tensor out(DType::f32, norm.shape);
  for (int64_t i = 0; i < wide.count(); ++i) out.f32()[i] = wide.f32()[i] - 1.0f;
  return out.cast(norm.dtype);
}

class GgufSource : public WeightSource {
 public:
  GgufSource(std::vector<GgufFile> parts, const GgufArchitecture& architecture)
      : parts_(std::move(parts)), architecture_(architecture) {
    for (size_t p = 0; p < parts_.size(); ++p) {
      for (const GgufTensor& tensor : parts_[p].tensors()) {
        if (tensor.name != kRopeFreqs) add(tensor, p);
      }
    }
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (!index_.emplace(tensors_[i].name, i).second) {
        fail(ErrorCode::format,
             origin(tensors_[i].name) + ": tensor '" + placements_[i].gguf_name + "' is in two parts");
      }
    }
  }

  const std::vector<SourceTensor>& tensors() const override { return tensors_; }

  const SourceTensor* find(std::string_view name) const override {
    const auto found = index_.find(name);
    return found == index_.end() ? nullptr : &tensors_[found->second];
  }

  Weight load(std::string_view name, Residency residency) const override {
    const size_t position = require(name);
    const Placement& placement = placements_[position];
    const GgufFile& file = parts_[placement.part];
    const GgufTensor& info = *file.find(placement.gguf_name);
    Tensor tensor = file.load_raw(placement.gguf_name, residency);
    if (placement.heads > 0) tensor = without_interleaving(tensor, placement.heads);
    if (info.is_block_type()) {
      QuantizedTensor w = {.format = &find_format(info.type->name),
                           .shape = info.shape,
                           .dtype = DType::f32,
                           .block = static_cast<int64_t>(info.type->block_values),
                           .parts = {}};
      w.parts["data"] = std::move(tensor);
      return w;
    }
    if (placement.shifted) tensor = minus_one(tensor);
    return placement.transposed ? tensor.transposed() : tensor;
  }

  std::string origin(std::string_view name) const override {
    return parts_[placements_[require(name)].part].path().string();
  }

 private:
  size_t require(std::string_view name) const {
    const auto found = index_.find(name);
    if (found == index_.end()) {
      fail(ErrorCode::format, parts_[0].path().string() + ": has no tensor '" + printable(name, 200) + "'");
    }
    return found->second;
  }

  void add(const GgufTensor& tensor, size_t part) {
    const std::string where = parts_[part].path().string() + ": tensor '" + printable(tensor.name, 200) + "'";
    const std::optional<std::string> name = hf_tensor_name(architecture_, tensor.name);
    if (!name) {
      fail(ErrorCode::unsupported, where + ": is not known for architecture " + std::string(architecture_.name));
    }
    if (tensor.is_block_type() && tensor.shape.size() != 2) {
      fail(ErrorCode::unsupported, where + ": " + std::string(tensor.type->name) + " of shape " +
                                       shape_text(tensor.shape) + ", only matrices are supported");
    }
    Placement placement = {.part = part, .gguf_name = tensor.name, .heads = heads_of(tensor, where)};
    placement.shifted = architecture_.shifted_norms && tensor.name.ends_with("norm.weight");
    const bool linear = tensor.name.starts_with("blk.") && tensor.shape.size() == 2;
    placement.transposed = architecture_.transposed && linear && !tensor.is_block_type();
    Shape shape = tensor.shape;
    if (placement.transposed) shape = {shape[1], shape[0]};
    tensors_.push_back({*name, std::move(shape), tensor.format_name(), tensor.bytes});
    placements_.push_back(std::move(placement));
  }

  /// How many heads the rows of a q or k projection belong to; 0 for all other tensors.
  int64_t heads_of(const GgufTensor& tensor, const std::string& where) const {
    const bool is_q = tensor.name.find(".attn_q.") != std::string::npos;
    const bool is_k = tensor.name.find(".attn_k.") != std::string::npos;
    if (!architecture_.permuted_heads || (!is_q && !is_k)) return 0;
    const std::string prefix(architecture_.name);
    const Json& metadata = parts_[0].metadata();
    const Json* heads = metadata.find(prefix + ".attention.head_count_kv");
    if (is_q || heads == nullptr) heads = metadata.find(prefix + ".attention.head_count");
    if (heads == nullptr)
      fail(ErrorCode::format, where + ": needs " + prefix + ".attention.head_count, which is missing");
    const int64_t count = heads->as_int(where + ": number of heads");
    const int64_t rows = tensor.shape[0];
    if (count < 1 || rows % 2 != 0 || rows / 2 % count != 0) {
      fail(ErrorCode::format, where + ": " + std::to_string(rows) + " rows do not divide into " +
                                  std::to_string(count) + " heads of an even size");
    }
    return count;
  }

  std::vector<GgufFile> parts_;
  const GgufArchitecture& architecture_;
  std::vector<SourceTensor> tensors_;
  std::vector<Placement> placements_;  // beside tensors_
  std::unordered_map<std::string_view, size_t> index_;
};

/// A tensor and the part that holds it, by ggml's name.
const GgufTensor* find_in(const std::vector<GgufFile>& parts, std::string_view name) {
  for (const GgufFile& part : parts) {
    if (const GgufTensor* tensor = part.find(name)) return tensor;
  }
  return nullptr;
}

std::vector<float> read_rope_freqs(const std::vector<GgufFile>& parts) {
  for (const GgufFile& part : parts) {
    const GgufTensor* info = part.find(kRopeFreqs);
    if (info == nullptr) continue;
    if (info->type->name != "f32" || info->shape.size() != 1 || info->shape[0] > kMaxRopeFreqs) {
      fail(ErrorCode::format, part.path().string() + ": tensor 'rope_freqs.weight' is not a vector of f32");
    }
    const Tensor tensor = part.load_raw(kRopeFreqs);
    return {tensor.f32(), tensor.f32() + tensor.count()};
  }
  return {};
}

GgufFacts gather_facts(const std::vector<GgufFile>& parts, const std::string& where) {
  const GgufTensor* embedding = find_in(parts, "token_embd.weight");
  if (embedding == nullptr)
    fail(ErrorCode::format, where + ": has no tensor 'token_embd.weight'; is it a vocabulary only?");
  GgufFacts facts;
  facts.vocab_size = embedding->shape[0];
  // Block formats decode to values of 16 significant bits or fewer, which f16 holds best of the 16-bit types.
  facts.dtype = find_format(embedding->format_name()).dense.value_or(DType::f16);
  if (const GgufTensor* types = find_in(parts, "token_types.weight")) facts.token_types = types->shape[0];
  facts.has_output = find_in(parts, "output.weight") != nullptr;
  facts.has_attention_bias = find_in(parts, "blk.0.attn_q.bias") != nullptr;
  facts.has_mlp_bias = find_in(parts, "blk.0.ffn_gate.bias") != nullptr;
  facts.rope_freqs = read_rope_freqs(parts);
  return facts;
}

}  // namespace

GgufModel open_gguf(const std::filesystem::path& path) {
  std::vector<GgufFile> parts = open_gguf_parts(path);
  const std::string where = path.string();
  GgufModel model;
  model.metadata = parts[0].metadata();
  const Json* name = model.metadata.find("general.architecture");
  if (name == nullptr) fail(ErrorCode::format, where + ": general.architecture is missing");
  const GgufArchitecture& architecture =
      find_gguf_architecture(name->as_string(where + ": general.architecture"), where);
  model.config = hf_config_from_gguf(architecture, model.metadata, gather_facts(parts, where), where);
  model.weights = std::make_unique<GgufSource>(std::move(parts), architecture);
  return model;
}

}  // namespace nibble
