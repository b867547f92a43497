#pragma once
// What a forward pass keeps of its intermediate results. Inference passes a null tape. Comparing hidden states and
// calibration pass one that keeps values by name. Training passes one that watches tensors: every operation whose
// inputs depend on a watched tensor leaves a function on it that turns the gradient of its result into gradients of its
// inputs, and backward() runs these in reverse.
//
// Results that cost little (norms, activations) are not held for the products that they go into, but made again.
//
// A tensor is known by its buffer, so an operation that is recorded writes to fresh memory and takes no slices. What
// depends on nothing watched costs nothing: below the first trained layer there is no backward pass.
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/tensor.h"

namespace nibble {

class Tape {
 public:
  /// Number of a value that gradients flow to.
  using Slot = int;
  static constexpr Slot kNone = -1;
  /// dy: the gradient of the operation's result, f32 of its shape.
  using Backward = std::function<void(Tape& tape, const Tensor& dy)>;
  /// Makes the result of an operation again, the same bits, of what its Backward keeps anyway.
  using Again = std::function<Tensor()>;
  /// An input that a Backward needs: the tensor itself, or how it is made again.
  struct Kept {
    Tensor x;
    Slot slot = kNone;
    Again again;

    Tensor make() const { return again ? again() : x; }
  };

  // By name. A tape that watches keeps nothing by name, to hold no more memory than it needs.
  void keep(std::string_view name, const Tensor& value) {
    if (!records()) values_.emplace_back(std::string(name), value);
  }
  /// Null when nothing of that name was kept.
  const Tensor* find(std::string_view name) const;

  /// Asks for the gradient of a tensor that goes into the forward pass: f32, a whole buffer.
  void watch(const Tensor& leaf);
  bool records() const { return !leaves_.empty(); }
  /// The gradient of a watched tensor, summed over all backward passes; empty when none reached it.
  const Tensor& gradient(const Tensor& leaf) const;
  /// Forgets the gradients, not what is watched.
  void clear_gradients();

  /// For an operation: where the gradient of its input goes, kNone when none is wanted.
  Slot slot(const Tensor& x) const;
  /// For an operation: y was made from inputs of which one has a slot. With `again`, operations on y do not hold it.
  void record(const Tensor& y, Backward backward, Again again = {});
  /// For an operation whose Backward needs its input x, and there for the Backward.
  Kept kept(const Tensor& x) const;
  Tensor value(const Kept& kept);
  /// For a Backward: adds to a gradient; nothing for kNone.
  void add(Slot slot, Tensor gradient);
  bool has_gradient(Slot slot) const { return slot != kNone && !gradients_[static_cast<size_t>(slot)].empty(); }
  /// The same in place: the gradient so far, zeros at first, of the given shape.
  Tensor& sum(Slot slot, const Shape& shape);

  /// The gradient of y is dy: runs everything recorded, last first, and forgets it.
  void backward(const Tensor& y, Tensor dy);

  /// An empty tape that watches the same tensors, for a part of the pass that goes backward on its own.
  Tape child() const;
  /// Adds the gradients that a child has found for them.
  void add_gradients_of(const Tape& child);

  bool recompute_layers = false;                        // see checkpoint()
  std::optional<uint64_t> dropout_seed = std::nullopt;  // of this pass; without one nothing is dropped
  bool in_pairs = false;  // weights that do not learn are multiplied in whole numbers, see ops/matrix.h

 private:
  using Key = std::weak_ptr<const Buffer>;  // ownership, not the address: memory that was freed may come back
  struct Node {
    Slot slot;
    Backward backward;
  };
  struct Made {
    Slot slot = kNone;
    Tensor value = {};
  };

  Slot new_slot(const Tensor& x);

  std::vector<std::pair<std::string, Tensor>> values_;
  std::map<Key, Slot, std::owner_less<>> slots_;
  std::vector<Tensor> leaves_;     // slots 0, 1, ...
  std::vector<Tensor> gradients_;  // by slot
  std::vector<Node> nodes_;
  std::map<Slot, Again> again_;
  Made made_;  // the last that was made again: what one operation needs, its neighbours need too
};

/// Whether an operation has to be recorded: one of its inputs depends on what is watched.
template <class... Inputs>
bool is_traced(const Tape* tape, const Inputs&... inputs) {
  return tape != nullptr && tape->records() && ((tape->slot(inputs) != Tape::kNone) || ...);
}

/// Whether operations may overwrite their operands, because nothing is recorded.
inline bool may_overwrite(const Tape* tape) { return tape == nullptr || !tape->records(); }

/// layer(x, tape), one of several that follow each other. Where the tape has recompute_layers, only x is kept and the
/// layer runs again when the gradient comes back: the same bits for a third more work. `layer` must stay valid until
/// then.
Tensor checkpoint(const Tensor& x, Tape* tape, std::function<Tensor(const Tensor& x, Tape* tape)> layer);

}  // namespace nibble
