#include "models/loader.h"

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "core/progress.h"
#include "models/skip.h"

namespace nibble {
namespace {

constexpr size_t kListedMismatches = 10;

/// "model.layers.3" of "model.layers.3.mlp.up_proj.weight": the name up to its first number; without one, the name.
std::string layer_of(std::string_view name) {
  size_t begin = 0;
  while (begin < name.size()) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const std::string_view part = name.substr(begin, end - begin);
    if (!part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos) {
      return std::string(name.substr(0, end));
    }
    begin = end + 1;
  }
  return std::string(name);
}

/// A matrix in blocks of GGUF.
bool is_block_type(const SourceTensor& tensor) {
  const Format* format = find_format_or_null(tensor.format);
  return format != nullptr && format->encode == nullptr && !format->dense && tensor.shape.size() == 2;
}

/// Where a tensor is read to that will be at `residency`. Blocks become other bytes when they are packed: those of the
/// file need not be copied for that. What stays as it is goes where it stays.
Residency read_to(const SourceTensor& tensor, Residency residency, bool changes) {
  if (is_block_type(tensor)) return Residency::mapped;
  const Format* format = find_format_or_null(tensor.format);
  const bool packs = format != nullptr && format->pack != nullptr;
  return residency == Residency::memory && !changes && !packs ? Residency::lasting : residency;
}

bool is_mapped(const Weight& weight) {
  const auto* quantized = std::get_if<QuantizedTensor>(&weight);
  if (quantized == nullptr) return false;
  return std::any_of(quantized->parts.begin(), quantized->parts.end(),
                     [](const auto& part) { return part.second.buffer && part.second.buffer->is_mapped_file(); });
}

/// To where it stays: tensors side by side, in huge pages.
void settle(Tensor& t) {
  if (t.empty() || t.buffer->is_mapped_file() || t.buffer->shares_mapping() || t.bytes() >= Buffer::kShareTo) return;
  Tensor moved = Tensor::lasting(t.dtype, t.shape);
  std::memcpy(moved.raw(), t.raw(), t.bytes());
  t = std::move(moved);
}

/// Packs a weight for computing, where its format does that.
void pack(Weight& weight, const ComputeOptions& options, Residency residency) {
  auto* quantized = std::get_if<QuantizedTensor>(&weight);
  if (quantized && quantized->format->pack) quantized->format->pack(*quantized, options, residency);
}

void settle(Weight& weight) {
  if (auto* dense = std::get_if<Tensor>(&weight)) return settle(*dense);
  for (auto& [name, part] : std::get<QuantizedTensor>(weight).parts) settle(part);
}

}  // namespace

void refuse_elements(const WeightSource& source, const std::string& name, DType found) {
  fail(ErrorCode::unsupported, source.origin(name) + ": " + name + ": found elements of " +
                                   std::string(dtype_name(found)) + ", expected floats");
}

Loader::Loader(const WeightSource& source, LoadOptions options)
    : source_(&source), names_(&source), options_(std::move(options)) {}

Weight Loader::fetch(const Parameter& parameter) {
  const auto& [name, needed, role, orientation] = parameter;
  check_interrupt();
  parameters_.push_back(parameter);
  if (source_ == nullptr) return Tensor();
  const SourceTensor* found = source_->find(name);
  if (found == nullptr) {
    mismatches_.push_back(name + " is missing, expected " + shape_text(needed));
    return Tensor();
  }
  const bool turned = orientation == Orientation::in_out && is_dense(*found);
  const Shape shape = turned ? Shape{needed[1], needed[0]} : needed;
  if (found->shape != shape) {
    mismatches_.push_back(source_->origin(name) + ": " + name + ": found " + shape_text(found->shape) + ", expected " +
                          shape_text(shape));
    return Tensor();
  }
  if (!mismatches_.empty()) return Tensor();  // the list will be thrown; reading more is wasted
  const bool is_new_head = role == Role::head && options_.head_format != nullptr;
  const Residency residency = is_new_head ? place_head(name, needed) : turned ? place_in_memory(name) : place(name);
  const bool may_quantize = role == Role::linear || (role == Role::head && options_.quantize_head);
  const bool changes = turned || is_new_head || role == Role::vector || (may_quantize && options_.format != nullptr);
  Weight weight = source_->load(name, read_to(*found, residency, changes));
  if (const auto* dense = std::get_if<Tensor>(&weight); dense && !is_float(dense->dtype)) {
    refuse_elements(*source_, name, dense->dtype);
  }
  if (turned) weight = std::get<Tensor>(weight).transposed();
  if (may_quantize) weight = quantize_on_load(std::move(weight), name);
  if (is_new_head) weight = in_head_format(weight);
  pack(weight, options_.compute, residency);
  if (residency == Residency::memory && is_mapped(weight)) weight = source_->load(name, residency);
  if (role != Role::vector) settle(weight);
  bytes_ += weight_bytes(weight);
  if (options_.progress) {
    options_.progress(static_cast<int64_t>(parameters_.size()), static_cast<int64_t>(source_->tensors().size()));
  }
  return weight;
}

Weight Loader::quantize_on_load(Weight weight, const std::string& name) const {
  if (options_.format == nullptr || is_skipped(module_of(name), options_.skip_modules)) return weight;
  const auto* dense = std::get_if<Tensor>(&weight);
  return encode(dense ? *dense : decode(weight), *options_.format, options_.encode);
}

Weight Loader::in_head_format(const Weight& weight) const {
  const auto* quantized = std::get_if<QuantizedTensor>(&weight);
  if (quantized && quantized->format == options_.head_format) return weight;
  return encode(quantized ? decode(weight) : std::get<Tensor>(weight), *options_.head_format, {});
}

// Layers fill the memory in the order in which the model asks for them; one that no longer fits stays in its file.
Residency Loader::place(const std::string& name) {
  const std::string layer = layer_of(name);
  for (const Placement& placed : placements_) {
    if (placed.layer == layer) return placed.residency;
  }
  Placement placement = {.layer = layer};
  for (const SourceTensor& tensor : source_->tensors()) {
    if (layer_of(tensor.name) == layer) placement.bytes += planned_bytes(tensor);
  }
  if (!fits(placement.bytes)) placement.residency = Residency::mapped;
  if (placement.residency == Residency::mapped && options_.format != nullptr) {
    fail(ErrorCode::resources, layer + ": does not fit into the memory for weights (" +
                                   std::to_string(*options_.memory_limit) +
                                   " bytes) and cannot be quantized in its file; use 'nibble quantize' first");
  }
  placements_.push_back(placement);
  return placement.residency;
}

// A matrix that has to be turned cannot be used as it lies in its file, whatever the limit; the placement says so.
Residency Loader::place_in_memory(const std::string& name) {
  place(name);
  const std::string layer = layer_of(name);
  for (Placement& placed : placements_) {
    if (placed.layer == layer) placed.residency = Residency::memory;
  }
  return Residency::memory;
}

// A head in another format than its file's has to be in memory.
Residency Loader::place_head(const std::string& name, const Shape& shape) {
  const Placement placement = {.layer = layer_of(name),
                               .bytes = weight_bytes(layout(shape, DType::f32, *options_.head_format, {}))};
  if (!fits(placement.bytes)) {
    fail(ErrorCode::resources, placement.layer + ": " + std::to_string(placement.bytes) + " bytes as " +
                                   std::string(options_.head_format->name) +
                                   " do not fit into the memory for weights (" +
                                   std::to_string(*options_.memory_limit) + " bytes); keep the head as it is stored");
  }
  placements_.push_back(placement);
  return placement.residency;
}

bool Loader::fits(uint64_t bytes) const {
  uint64_t used = bytes;
  for (const Placement& placed : placements_) used += placed.residency == Residency::memory ? placed.bytes : 0;
  return !options_.memory_limit || used <= *options_.memory_limit;
}

/// As kept in memory: what will be quantized counts in its new form, GGUF's blocks in the one they are packed to.
uint64_t Loader::planned_bytes(const SourceTensor& tensor) {
  const bool encoded = options_.format != nullptr && tensor.shape.size() == 2 && layer_of(tensor.name) != tensor.name &&
                       !is_skipped(module_of(tensor.name), options_.skip_modules);
  if (encoded) return weight_bytes(layout(tensor.shape, DType::f32, *options_.format, options_.encode));
  return is_block_type(tensor) ? sizes_.bytes(find_format(tensor.format), {}, tensor.shape) : tensor.bytes;
}

Linear Loader::linear(const std::string& module, int64_t out, int64_t in, Bias bias) {
  Linear layer;
  layer.name = module;
  layer.weight = fetch({.name = module + ".weight", .shape = {out, in}, .role = Role::linear});
  if (bias == Bias::yes) layer.bias = vector(module + ".bias", out);
  return layer;
}

Linear Loader::conv1d(const std::string& module, int64_t out, int64_t in) {
  Linear layer;
  layer.name = module;
  layer.weight =
      fetch({.name = module + ".weight", .shape = {out, in}, .role = Role::linear, .orientation = Orientation::in_out});
  layer.bias = vector(module + ".bias", out);
  return layer;
}

Linear Loader::head(const std::string& module, int64_t out, int64_t in, Bias bias) {
  Linear layer;
  layer.name = module;
  layer.weight = fetch({.name = module + ".weight", .shape = {out, in}, .role = Role::head});
  if (bias == Bias::yes) layer.bias = vector(module + ".bias", out);
  return layer;
}

Linear Loader::tied_head(const std::string& module, const Weight& embedding) {
  tied_head_module_ = module;
  Linear layer = {.name = module, .weight = embedding, .bias = {}};
  const auto* dense = std::get_if<Tensor>(&embedding);
  const bool described = dense && dense->empty();  // nothing was loaded
  if (options_.head_format == nullptr || described) return layer;
  const Residency residency = place_head(module, weight_shape(embedding));
  layer.weight = in_head_format(embedding);
  pack(layer.weight, options_.compute, residency);
  settle(layer.weight);
  bytes_ += weight_bytes(layer.weight);
  return layer;
}

bool Loader::has_own_head(const std::string& module, const std::string& table) const {
  const std::string head_name = module + ".weight", table_name = table + ".weight";
  if (names_ == nullptr || names_->find(head_name) == nullptr || names_->find(table_name) == nullptr) return false;
  const Weight head = names_->load(head_name), other = names_->load(table_name);
  const auto *a = std::get_if<Tensor>(&head), *b = std::get_if<Tensor>(&other);
  return a == nullptr || b == nullptr || a->dtype != b->dtype || a->shape != b->shape ||
         std::memcmp(a->raw(), b->raw(), a->bytes()) != 0;
}

ComputeOptions Loader::head_compute() const {
  ComputeOptions compute = options_.compute;
  compute.tokens_apart = true;
  compute.float_activations = options_.head_format != nullptr;
  return compute;
}

Embedding Loader::embedding(const std::string& module, int64_t rows, int64_t cols) {
  return {.name = module,
          .weight = fetch({.name = module + ".weight", .shape = {rows, cols}, .role = Role::embedding})};
}

Tensor Loader::vector(const std::string& name, int64_t count) {
  const Weight weight = fetch({.name = name, .shape = {count}, .role = Role::vector});
  const auto* dense = std::get_if<Tensor>(&weight);
  if (dense == nullptr) {
    mismatches_.push_back(name + ": found a quantized matrix, expected a vector");
    return Tensor();
  }
  return dense->empty() ? *dense : dense->cast(DType::f32);
}

void Loader::finish() const {
  if (mismatches_.empty()) return;
  std::string message = "the weights do not fit config.json: ";
  for (size_t i = 0; i < mismatches_.size() && i < kListedMismatches; ++i) message += (i ? "; " : "") + mismatches_[i];
  if (mismatches_.size() > kListedMismatches) {
    message += "; and " + std::to_string(mismatches_.size() - kListedMismatches) + " more";
  }
  fail(ErrorCode::format, message);
}

}  // namespace nibble
