#include "tasks/evaluate_reference.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "core/error.h"
#include "core/limits.h"
#include "ops/elementwise.h"
#include "ops/linear_observer.h"
#include "tasks/loaded_model.h"

namespace nibble {
namespace {

// Keys of __metadata__; all values are text.
constexpr const char* kFormat = "format";  // kFormatName
constexpr const char* kVocabulary = "vocab_size";
constexpr const char* kContext = "context";        // ids of the longest chunk
constexpr const char* kConvention = "convention";  // as convention_name()
constexpr const char* kChunks = "chunks";
constexpr const char* kIdsHash = "ids_fnv1a";  // as chunks_hash()
constexpr const char* kSoftcap = "logit_softcap";
constexpr const char* kModelBytes = "model_bytes";
constexpr const char* kModel = "model";  // its path, for people
constexpr const char* kFormatName = "nibble evaluation reference 1";

constexpr int64_t kProbeIds = 16;         // that the head is tried out on
constexpr double kProbeTolerance = 1e-4;  // of the largest logit: sums in another order, not another formula

std::string hidden_name(size_t index) { return "hidden." + std::to_string(index); }

const std::string& metadata(const SafetensorsFile& file, const char* key) {
  const auto found = file.metadata().find(key);
  if (found != file.metadata().end()) return found->second;
  fail(ErrorCode::format, file.path().string() + ": __metadata__ has no '" + key + "'");
}

template <class T>
T number(const SafetensorsFile& file, const char* key, T low, T high) {
  const std::string& text = metadata(file, key);
  T value = {};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= low && value <= high) return value;
  fail(ErrorCode::format, file.path().string() + ": __metadata__: " + key + ": found '" + printable(text, 100) +
                              "', which is not a number in range");
}

double softcap_of(const Json& config) {
  const Json* text = config.find_value("text_config");
  const Json* cap = (text ? *text : config).find_value("final_logit_softcapping");
  return cap ? cap->as_double("final_logit_softcapping") : 0;
}

size_t longest(const Chunks& chunks) {
  size_t ids = 0;
  for (const auto& chunk : chunks) ids = std::max(ids, chunk.size());
  return ids;
}

Tensor apply_head(const Tensor& hidden, const Linear& head, double softcap) {
  Tensor logits = linear(hidden, head, {});
  if (softcap > 0) softcap_in_place(logits, static_cast<float>(softcap));
  return logits;
}

/// The output head as a dense layer, found by letting the model use it.
Linear dense_head(const LoadedModel& loaded, std::span<const int32_t> ids, double softcap) {
  const Tensor hidden = loaded.model->hidden({.ids = ids}, nullptr, nullptr);
  Linear head;
  Tensor expected;
  {
    const LinearObserver observer([&](const LinearCall& call) { head = call.layer; });
    expected = loaded.model->logits(hidden);
  }
  if (!std::holds_alternative<Tensor>(head.weight)) head.weight = decode(head.weight);
  const Tensor found = apply_head(hidden, head, softcap);
  double largest = 0, difference = 0;
  for (int64_t i = 0; i < expected.count(); ++i) {
    largest = std::max(largest, std::fabs(static_cast<double>(expected.f32()[i])));
    difference = std::max(difference, std::fabs(static_cast<double>(expected.f32()[i]) - found.f32()[i]));
  }
  if (difference > kProbeTolerance * largest) {
    fail(ErrorCode::unsupported, loaded.path +
                                     ": its predictions cannot be saved, they are not a plain product of the "
                                     "output head; use the model before quantization as the reference");
  }
  return head;
}

}  // namespace

ReferenceWriter::ReferenceWriter(const std::string& path, const CausalLM& model, const Chunks& chunks,
                                 const EvaluateOptions& options)
    : staging_{staging_path(final_path(path)), final_path(path)} {
  const LoadedModel& loaded = model.internal();
  const double softcap = softcap_of(loaded.config);
  const std::span<const int32_t> ids(chunks[0]);
  const Linear head = dense_head(loaded, ids.first(std::min<size_t>(ids.size(), kProbeIds)), softcap);
  const Tensor& weight = std::get<Tensor>(head.weight);

  std::vector<TensorDeclaration> tensors = {{"head.weight", weight.dtype, weight.shape}};
  if (head.bias) tensors.push_back({"head.bias", DType::f32, head.bias->shape});
  for (size_t i = 0; i < chunks.size(); ++i) {
    const int64_t rows = static_cast<int64_t>(chunks[i].size()) - first_scored(i, chunks[i].size(), options);
    if (rows > 0) tensors.push_back({hidden_name(i), DType::f32, {rows, weight.cols()}});
  }
  out_ = std::make_unique<SafetensorsWriter>(
      staging_.file, tensors,
      std::map<std::string, std::string>{{kFormat, kFormatName},
                                         {kVocabulary, std::to_string(model.vocab_size())},
                                         {kContext, std::to_string(longest(chunks))},
                                         {kConvention, convention_name(options)},
                                         {kChunks, std::to_string(chunks.size())},
                                         {kIdsHash, chunks_hash(chunks)},
                                         {kSoftcap, std::to_string(softcap)},
                                         {kModelBytes, std::to_string(model.weight_bytes())},
                                         {kModel, loaded.path}});
  out_->write("head.weight", weight);
  if (head.bias) out_->write("head.bias", *head.bias);
}

ReferenceWriter::Staging::~Staging() {
  if (!file.empty()) unlink(file.c_str());
}

void ReferenceWriter::add(size_t index, const Tensor& hidden) { out_->write(hidden_name(index), hidden); }

void ReferenceWriter::finish() {
  out_->finish();
  publish_file(staging_.file, staging_.final_name);
  staging_.file.clear();
}

SavedReference SavedReference::open(const std::string& path) {
  auto contents = std::make_shared<Contents>(Contents{.file = SafetensorsFile(path)});
  const SafetensorsFile& file = contents->file;
  const auto format = file.metadata().find(kFormat);
  if (format == file.metadata().end() || format->second != kFormatName) {
    fail(ErrorCode::format, path + ": was not written by --save-reference of this version");
  }
  contents->vocab_size = number<int64_t>(file, kVocabulary, 1, limits::kMaxVocabulary);
  contents->context = number<int64_t>(file, kContext, 1, INT32_MAX);
  contents->chunks = number<int64_t>(file, kChunks, 1, INT32_MAX);
  contents->softcap = number<double>(file, kSoftcap, 0, 1e6);
  contents->model_bytes = number<uint64_t>(file, kModelBytes, 0, UINT64_MAX);
  contents->convention = metadata(file, kConvention);
  contents->ids_hash = metadata(file, kIdsHash);

  Tensor weight = file.load("head.weight", Residency::mapped);
  if (!is_float(weight.dtype) || weight.shape.size() != 2 || weight.rows() != contents->vocab_size) {
    fail(ErrorCode::format, path + ": head.weight: found " + shape_text(weight.shape) + ", expected " +
                                std::to_string(contents->vocab_size) + " rows of floats");
  }
  contents->head = {.name = "head", .weight = weight, .bias = {}};
  if (file.find("head.bias") != nullptr) {
    const Tensor bias = file.load("head.bias");
    if (bias.dtype != DType::f32 || bias.shape != Shape{contents->vocab_size}) {
      fail(ErrorCode::format, path + ": head.bias: found " + shape_text(bias.shape) + ", expected f32 [" +
                                  std::to_string(contents->vocab_size) + "]");
    }
    contents->head.bias = bias;
  }
  return SavedReference(std::move(contents));
}

void SavedReference::Contents::check(int64_t model_vocab_size, const Chunks& wanted,
                                     const EvaluateOptions& options) const {
  const auto refuse = [&](const std::string& what, const std::string& has, const std::string& needs) {
    fail(ErrorCode::invalid_argument, path() + ": " + what + " (found " + printable(has, 100) + ", expected " + needs +
                                          "); save it again with this text and these options");
  };
  if (vocab_size != model_vocab_size) {
    fail(ErrorCode::invalid_argument, path() + ": is the reference of a model with a vocabulary of " +
                                          std::to_string(vocab_size) + ", this model has one of " +
                                          std::to_string(model_vocab_size));
  }
  if (convention != convention_name(options)) {
    refuse("was saved with another way of cutting the text", convention, convention_name(options));
  }
  if (context != static_cast<int64_t>(longest(wanted))) {
    refuse("was saved with another context", std::to_string(context), std::to_string(longest(wanted)));
  }
  if (ids_hash != chunks_hash(wanted)) {
    refuse("was saved for another text", ids_hash, chunks_hash(wanted));
  }
}

Tensor SavedReference::Contents::hidden(size_t index, int64_t rows) const {
  Tensor hidden = file.load(hidden_name(index));
  const Shape shape = {rows, std::get<Tensor>(head.weight).cols()};
  if (hidden.dtype == DType::f32 && hidden.shape == shape) return hidden;
  fail(ErrorCode::format, path() + ": " + hidden_name(index) + ": found " + shape_text(hidden.shape) +
                              ", expected f32 " + shape_text(shape));
}

Tensor SavedReference::Contents::logits(const Tensor& hidden) const { return apply_head(hidden, head, softcap); }

}  // namespace nibble
