#pragma once
// Adapters that begin with what they find in the weights beside them: PiSSA (arXiv 2404.02948) and LoftQ (arXiv
// 2310.08659).
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "nibble/lora_config.h"
#include "ops/lora.h"
#include "tasks/adapter_targets.h"
#include "tasks/loaded_model.h"

namespace nibble {

/// What A [r, in] and B [out, r] of a layer begin with, f32.
struct FirstValues {
  Tensor a, b;
};
using Starts = std::map<std::string, FirstValues, std::less<>>;  // by module

/// Finds the first values that config().init_lora_weights names for every target layer, if they depend on the weights;
/// else there are none. Asked before there are adapters, so that what it refuses leaves the model as it was.
///
///   pissa   W = U S V^T: B A = U_r S_r V_r^T / scaling. The model stays as it is and the base without that part,
///           W - scaling B A, is what is trained on. It is not written down: a second adapter of the layer subtracts.
///           So the base keeps its dtype, and the two together are the exact change of W, an adapter of rank 2 r.
///   loftq   of a quantized layer: B A = U_r S_r V_r^T / scaling of W - decode(Q(W)), with the original weight of the
///           files. The codes stay, so the adapter goes with every base that is quantized in the same way. As PEFT's
///           replace_lora_weights_loftq, but for the division by scaling, without which it fits alpha = r alone.
///
/// Comes after check_starts(). @throws Error{format} for a weight with a value that is not finite.
Starts find_starts(LoadedModel& model, const AdapterTargets& targets, uint64_t seed);

/// What can be refused without values.
/// @throws Error{unsupported} for pissa on a quantized layer and for loftq where the files have no original weight,
///         Error{invalid_argument} for loftq when no target is quantized, a rank that a layer cannot have or an alpha
///         that is not positive.
void check_starts(LoadedModel& model, const AdapterTargets& targets);

/// By module, what its weight is trained without: adapters of negative scale that stay as they are.
using SubtractedStarts = std::map<std::string, std::shared_ptr<Lora>, std::less<>>;

/// Gives the last adapter of every layer that has one its first values. For pissa a second adapter subtracts them.
SubtractedStarts set_starts(LoadedModel& model, const Starts& starts, const AdapterTargets& targets);

/// The configuration of the change as an adapter of W itself: twice the rank at the same scaling.
LoraConfig with_doubled_rank(LoraConfig config);

/// The tensor "MODULE.lora_A.weight" [r, in] or "MODULE.lora_B.weight" [out, r] as the adapter of twice the rank has
/// it: [A; A_0] or [B, -B_0]. Others, and those of modules without a start, as they are.
Tensor with_start(const std::string& name, const Tensor& value, const SubtractedStarts& starts);

}  // namespace nibble
