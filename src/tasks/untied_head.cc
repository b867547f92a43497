#include "tasks/untied_head.h"

namespace nibble {
namespace {

constexpr const char* kTied = "tie_word_embeddings";

/// The table of tokens comes first, before that of positions.
const Parameter& table_of(const ModelOutline& outline) { return outline.parameters.front(); }

std::string head_weight(const ModelOutline& outline) { return outline.tied_head + ".weight"; }

class UntiedSource final : public WeightSource {
 public:
  UntiedSource(std::unique_ptr<WeightSource> tied, const std::string& head, std::string table)
      : tied_(std::move(tied)), table_(std::move(table)), tensors_(tied_->tensors()) {
    tensors_.push_back(*tied_->find(table_));
    tensors_.back().name = head;
  }

  const std::vector<SourceTensor>& tensors() const override { return tensors_; }
  const SourceTensor* find(std::string_view name) const override {
    return is_head(name) ? &tensors_.back() : tied_->find(name);
  }
  Weight load(std::string_view name, Residency residency) const override {
    return tied_->load(stored_name(name), residency);
  }
  std::string origin(std::string_view name) const override { return tied_->origin(stored_name(name)); }

 private:
  bool is_head(std::string_view name) const { return name == tensors_.back().name; }
  std::string_view stored_name(std::string_view name) const { return is_head(name) ? table_ : name; }

  std::unique_ptr<WeightSource> tied_;
  std::string table_;
  std::vector<SourceTensor> tensors_;  // the head is the last one
};

}  // namespace

std::vector<Parameter> parameters_with_head(const ModelOutline& outline) {
  std::vector<Parameter> parameters = outline.parameters;
  if (outline.tied_head.empty()) return parameters;
  parameters.push_back({.name = head_weight(outline), .shape = table_of(outline).shape, .role = Role::head});
  return parameters;
}

void untie_head(ModelFiles& files, const ModelOutline& outline) {
  files.config.set(kTied, false);
  if (const Json* text = files.config.find_value("text_config"); text && text->is_object()) {
    Json untied = *text;
    untied.set(kTied, false);
    files.config.set("text_config", untied);
  }
  if (files.weights->find(head_weight(outline)) != nullptr) return;  // some files hold the matrix twice
  files.weights =
      std::make_unique<UntiedSource>(std::move(files.weights), head_weight(outline), table_of(outline).name);
}

}  // namespace nibble
