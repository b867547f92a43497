#pragma once
#include <string>
#include <string_view>

#include "text/jinja_ast.h"

namespace nibble::jinja {

/// The tree of a template: a `block`.
/// @throws Error{format} on bad syntax or too deep nesting, Error{unsupported} for a tag or syntax that this subset
/// of Jinja does not have, naming it. An unknown filter or test is an error only where rendering comes to it.
NodePtr parse(std::string_view source, const std::string& where);

}  // namespace nibble::jinja
