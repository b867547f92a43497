#include "ops/tape.h"

#include "core/error.h"
#include "ops/elementwise.h"

namespace nibble {
namespace {

/// Two values may have been given the same gradient: what another holds is not written to.
void make_own(Tensor& gradient) {
  if (gradient.buffer.use_count() > 1) gradient = copy_of(gradient);
}

}  // namespace

const Tensor* Tape::find(std::string_view name) const {
  for (const auto& [key, value] : values_) {
    if (key == name) return &value;
  }
  return nullptr;
}

Tape::Slot Tape::new_slot(const Tensor& x) {
  const auto slot = static_cast<Slot>(gradients_.size());
  if (!slots_.emplace(x.buffer, slot).second) fail(ErrorCode::internal, "Tape: one buffer stands for two values");
  gradients_.emplace_back();
  return slot;
}

void Tape::watch(const Tensor& leaf) {
  if (!nodes_.empty()) fail(ErrorCode::internal, "Tape: watch() comes before the forward pass");
  if (slot(leaf) != kNone) return;
  new_slot(leaf);
  leaves_.push_back(leaf);
}

const Tensor& Tape::gradient(const Tensor& leaf) const {
  const Slot s = slot(leaf);
  if (s == kNone) fail(ErrorCode::internal, "Tape: asked for the gradient of a tensor that is not watched");
  return gradients_[static_cast<size_t>(s)];
}

void Tape::clear_gradients() {
  for (Tensor& g : gradients_) g = Tensor();
}

Tape::Slot Tape::slot(const Tensor& x) const {
  if (x.empty()) return kNone;
  const auto it = slots_.find(x.buffer);
  return it == slots_.end() ? kNone : it->second;
}

void Tape::record(const Tensor& y, Backward backward, Again again) {
  const Slot slot = new_slot(y);
  nodes_.push_back({slot, std::move(backward)});
  if (again) again_.emplace(slot, std::move(again));
}

Tape::Kept Tape::kept(const Tensor& x) const {
  const auto found = again_.find(slot(x));
  if (found == again_.end()) return {.x = x, .again = {}};
  return {.x = {}, .slot = found->first, .again = found->second};
}

Tensor Tape::value(const Kept& kept) {
  if (!kept.again) return kept.x;
  if (made_.slot != kept.slot) made_ = {kept.slot, kept.make()};
  return made_.value;
}

void Tape::add(Slot slot, Tensor gradient) {
  if (slot == kNone) return;
  Tensor& total = gradients_[static_cast<size_t>(slot)];
  if (total.empty()) {
    total = std::move(gradient);
    return;
  }
  if (total.count() != gradient.count()) fail(ErrorCode::internal, "Tape: gradients of two shapes for one value");
  make_own(total);
  add_in_place(total, gradient);
}

Tensor& Tape::sum(Slot slot, const Shape& shape) {
  Tensor& total = gradients_[static_cast<size_t>(slot)];
  if (total.empty()) total = Tensor(DType::f32, shape);
  make_own(total);
  return total;
}

void Tape::backward(const Tensor& y, Tensor dy) {
  add(slot(y), std::move(dy));
  while (!nodes_.empty()) {
    const Node node = std::move(nodes_.back());
    nodes_.pop_back();
    const Tensor gradient = std::exchange(gradients_[static_cast<size_t>(node.slot)], Tensor());
    if (!gradient.empty()) node.backward(*this, gradient);
    again_.erase(node.slot);
  }
  made_ = {};
  gradients_.resize(leaves_.size());
  std::erase_if(slots_, [&](const auto& entry) { return entry.second >= static_cast<Slot>(leaves_.size()); });
}

Tape Tape::child() const {
  Tape tape;
  for (const Tensor& leaf : leaves_) tape.watch(leaf);
  tape.dropout_seed = dropout_seed;
  tape.recompute_layers = recompute_layers;
  tape.in_pairs = in_pairs;
  return tape;
}

void Tape::add_gradients_of(const Tape& child) {
  for (size_t i = 0; i < leaves_.size(); ++i) {
    if (!child.gradients_[i].empty()) add(static_cast<Slot>(i), child.gradients_[i]);
  }
}

Tensor checkpoint(const Tensor& x, Tape* tape, std::function<Tensor(const Tensor& x, Tape* tape)> layer) {
  if (may_overwrite(tape) || !tape->recompute_layers) return layer(x, tape);
  const auto run = [layer = std::move(layer), x, tracked = tape->slot(x) != Tape::kNone](Tape& part) {
    if (tracked) part.watch(x);
    return layer(x, &part);
  };
  Tape part = tape->child();
  const Tensor y = run(part);
  if (part.slot(y) == Tape::kNone) return y;
  tape->record(y, [run, x, to = tape->slot(x)](Tape& whole, const Tensor& dy) {
    Tape again = whole.child();
    const Tensor result = run(again);
    again.backward(result, dy);
    if (to != Tape::kNone) whole.add(to, again.gradient(x));
    whole.add_gradients_of(again);
  });
  return y;
}

}  // namespace nibble
