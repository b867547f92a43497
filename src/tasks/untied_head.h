#pragma once
// A model whose output head shares the embeddings' matrix, as one with two matrices: of which one can then change
// alone.
#include <string>
#include <vector>

#include "io/model_files.h"
#include "models/registry.h"

namespace nibble {

/// The parameters of a model, and last a tied head as if it were one.
std::vector<Parameter> parameters_with_head(const ModelOutline& outline);

/// Lets the files show the tied head of their model as a tensor of its own, with the values of the embeddings, and the
/// configuration say so.
void untie_head(ModelFiles& files, const ModelOutline& outline);

}  // namespace nibble
