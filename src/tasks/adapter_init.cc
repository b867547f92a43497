#include "tasks/adapter_init.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "core/error.h"
#include "core/progress.h"
#include "io/model_files.h"
#include "io/peft.h"
#include "kernels/kernels.h"
#include "ops/dora.h"
#include "ops/elementwise.h"
#include "ops/matrix.h"
#include "ops/svd.h"
#include "tasks/stored_form.h"
#include "train/parameters.h"

namespace nibble {
namespace {

constexpr const char* kWhere = "init_lora_weights: ";
constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";

void require_finite(const Tensor& w, const std::string& layer) {
  for (int64_t i = 0; i < w.count(); ++i) {
    if (!std::isfinite(w.f32()[i])) {
      fail(ErrorCode::format, layer + ".weight: has a value that is not finite, so no singular values");
    }
  }
}

/// B A = (U_r S_r V_r^T) / scaling of w, the root of each singular value on either side.
FirstValues split(const Tensor& w, const std::string& layer, const SvdOptions& options, float scaling) {
  require_finite(w, layer);
  const PartialSvd svd = partial_svd(w, options);
  Tensor a = copy_of(svd.v), b = copy_of(svd.u);
  for (int64_t j = 0; j < options.rank; ++j) {
    const float root = std::sqrt(svd.s[static_cast<size_t>(j)] / scaling);
    for (int64_t i = 0; i < a.cols(); ++i) a.f32()[j * a.cols() + i] *= root;
    for (int64_t i = 0; i < b.cols(); ++i) b.f32()[j * b.cols() + i] *= root;
  }
  return {.a = a, .b = transpose(b)};
}

/// The weights before they were quantized.
class Originals {
 public:
  explicit Originals(const LoadedModel& model)
      : files_(open_model(model.path)), stored_(files_.config, files_.path.string(), model.parameters) {}

  void require(const std::string& name) const {
    const SourceTensor* source = files_.weights->find(name);
    if (source == nullptr || !is_dense(*source)) {
      fail(ErrorCode::unsupported,
           files_.path.string() + ": " + name + ": is stored as " + (source ? source->format : "nothing") +
               ", and loftq needs the weight before quantization; give the original model, with method qlora");
    }
  }
  Tensor load(const std::string& name) const { return stored_.to_memory(name, decode(files_.weights->load(name))); }

 private:
  ModelFiles files_;
  StoredForm stored_;
};

/// W - decode(Q(W))
Tensor lost_in(const Linear& layer, const Originals& originals) {
  Tensor lost = copy_of(originals.load(layer.name + ".weight"));
  const Tensor kept = decode(layer.weight);
  kernels().axpy(-1.0f, kept.f32(), lost.f32(), lost.count());
  return lost;
}

bool is_quantized(const Linear& layer) { return std::holds_alternative<QuantizedTensor>(layer.weight); }

/// Those of the targets that get first values of their own: for loftq the quantized ones.
std::vector<Linear*> layers_with_starts(LoadedModel& model, const AdapterTargets& targets) {
  const bool all = pissa_iterations(targets.config().init_lora_weights).has_value();
  std::vector<Linear*> layers;
  for_each_linear(*model.model, [&](Linear& layer) {
    if (targets.is_target(layer.name, ModuleKind::linear) && (all || is_quantized(layer))) layers.push_back(&layer);
  });
  return layers;
}

void check_pissa(const std::vector<Linear*>& layers) {
  for (const Linear* layer : layers) {
    if (!is_quantized(*layer)) continue;
    fail(ErrorCode::unsupported, std::string(kWhere) + "pissa is for dense weights, " + layer->name + " is stored as " +
                                     std::string(std::get<QuantizedTensor>(layer->weight).format->name) +
                                     "; take loftq, or method lora over the original model");
  }
}

void check_loftq(const std::vector<Linear*>& layers, const LoadedModel& model) {
  if (layers.empty()) {
    fail(ErrorCode::invalid_argument, std::string(kWhere) + "loftq makes up for quantization, and no layer of " +
                                          model.path + " that is meant is quantized; take method qlora, or pissa");
  }
  const Originals originals(model);
  for (const Linear* layer : layers) originals.require(layer->name + ".weight");
}

void check_rank(const Linear& layer, const AdapterTargets& targets) {
  const std::string& init = targets.config().init_lora_weights;
  const Shape shape = weight_shape(layer.weight);
  const int64_t rank = targets.rank(layer.name), most = std::min(shape[0], shape[1]);
  if (const double alpha = targets.alpha(layer.name); !(alpha > 0)) {
    fail(ErrorCode::invalid_argument, "lora_alpha: " + layer.name + ": found " + std::to_string(alpha) +
                                          ", expected more than 0, since " + init + " divides by its root");
  }
  if (rank <= most) return;
  fail(ErrorCode::invalid_argument, "r: " + layer.name + ": found " + std::to_string(rank) + ", expected at most " +
                                        std::to_string(most) + ", since " + init +
                                        " begins with singular values and a weight " + shape_text(shape) +
                                        " has no more of them");
}

bool depends_on_weights(const std::string& init) { return init == "loftq" || pissa_iterations(init); }

/// The matrix whose largest part an adapter begins with: for loftq what quantization has taken, else the weight.
std::function<Tensor(const Linear&)> beginning_of(const std::string& init, const LoadedModel& model) {
  if (init != "loftq") return [](const Linear& layer) { return decode(layer.weight); };
  const auto originals = std::make_shared<Originals>(model);
  return [originals](const Linear& layer) { return lost_in(layer, *originals); };
}

void copy_into(Tensor to, const Tensor& from) { std::memcpy(to.raw(), from.raw(), from.bytes()); }

Tensor below_each_other(const Tensor& top, const Tensor& bottom) {
  Tensor out(DType::f32, {top.rows() + bottom.rows(), top.cols()});
  std::memcpy(out.raw(), top.raw(), top.bytes());
  std::memcpy(out.raw() + top.bytes(), bottom.raw(), bottom.bytes());
  return out;
}

}  // namespace

void check_starts(LoadedModel& model, const AdapterTargets& targets) {
  const std::string& init = targets.config().init_lora_weights;
  if (!depends_on_weights(init)) return;
  const std::vector<Linear*> layers = layers_with_starts(model, targets);
  if (init == "loftq") {
    check_loftq(layers, model);
  } else {
    check_pissa(layers);
  }
  for (const Linear* layer : layers) check_rank(*layer, targets);
}

Starts find_starts(LoadedModel& model, const AdapterTargets& targets, uint64_t seed) {
  const std::string& init = targets.config().init_lora_weights;
  Starts starts;
  if (!depends_on_weights(init)) return starts;
  const std::vector<Linear*> layers = layers_with_starts(model, targets);
  // The first pass of pissa_niter_N finds a subspace at all.
  const int64_t passes = init == "loftq" || init == "pissa" ? 0 : *pissa_iterations(init) + 1;
  const auto beginning = beginning_of(init, model);
  const auto total = static_cast<int64_t>(layers.size());
  for (const Linear* layer : layers) {
    check_interrupt();
    const LoraOptions options = {
        .rank = targets.rank(layer->name), .alpha = targets.alpha(layer->name), .rslora = targets.config().use_rslora};
    starts.emplace(layer->name, split(beginning(*layer), layer->name,
                                      {.rank = options.rank, .passes = passes, .seed = seed}, lora_scaling(options)));
    const auto done = static_cast<int64_t>(starts.size());
    if (model.options.progress) model.options.progress({.unit = "layers", .done = done, .total = total});
  }
  return starts;
}

SubtractedStarts set_starts(LoadedModel& model, const Starts& starts, const AdapterTargets& targets) {
  const bool subtracts = pissa_iterations(targets.config().init_lora_weights).has_value();
  SubtractedStarts subtracted;
  for_each_linear(*model.model, [&](Linear& layer) {
    const auto start = starts.find(layer.name);
    if (start == starts.end()) return;
    const auto& [a, b] = start->second;
    Lora& lora = *layer.adapters.back();
    // In place, because the parameters that are trained share this memory.
    copy_into(lora.a, a);
    copy_into(lora.b, b);
    if (!lora.magnitude.empty()) copy_into(lora.magnitude, dora_row_lengths(layer.weight, lora));
    if (!subtracts) return;
    auto minus = std::make_shared<Lora>(Lora{.a = a, .b = b, .scaling = -lora.scaling});
    layer.adapters.push_back(minus);
    subtracted.emplace(layer.name, std::move(minus));
  });
  return subtracted;
}

LoraConfig with_doubled_rank(LoraConfig config) {
  const double factor = config.use_rslora ? std::sqrt(2.0) : 2.0;
  config.init_lora_weights = "true";
  config.r *= 2;
  config.lora_alpha *= factor;
  for (auto& [key, rank] : config.rank_pattern) rank *= 2;
  for (auto& [key, alpha] : config.alpha_pattern) alpha *= factor;
  return config;
}

Tensor with_start(const std::string& name, const Tensor& value, const SubtractedStarts& starts) {
  const bool is_a = name.ends_with(kA);
  if (!is_a && !name.ends_with(kB)) return value;
  const auto start = starts.find(std::string_view(name).substr(0, name.size() - kA.size()));
  if (start == starts.end()) return value;
  if (is_a) return below_each_other(value, start->second->a);
  Tensor subtracted = transpose(start->second->b);
  scale_in_place(subtracted, -1.0f);
  return transpose(below_each_other(transpose(value), subtracted));
}

}  // namespace nibble
