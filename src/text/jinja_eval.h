#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/json.h"
#include "text/jinja_ast.h"

namespace nibble::jinja {

/// What the template writes when it sees the variables. The tree must have come from parse().
/// @throws Error{format} for errors while rendering, Error{resources} when a limit of jinja_runtime.h is passed,
/// Error{invalid_argument} when the template calls raise_exception.
std::string render(const Node& tree, const std::string& where,
                   const std::vector<std::pair<std::string, Json>>& variables);

}  // namespace nibble::jinja
