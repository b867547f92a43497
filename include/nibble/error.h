#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

namespace nibble {

/// Says what kind of failure an Error is; the command line maps each to one exit status.
enum class ErrorCode {
  internal,          ///< a defect of nibble or an unexpected failure of the system (exit status 1)
  invalid_argument,  ///< wrong use: unknown option, value out of range (2)
  io,                ///< an input file cannot be opened or read (3)
  format,            ///< the contents of a file are not valid (3)
  unsupported,       ///< a valid thing that nibble does not do (4)
  resources,         ///< not enough memory or disk (5)
  exists,            ///< the output exists already or is locked by another process (6)
  interrupted,       ///< stopped by the user (130)
};

/// The name of a code as it stands in JSON output, for example "invalid_argument".
std::string_view error_code_name(ErrorCode code);

/// The one exception type of nibble. what() is one line: "FILE: WHERE: what is wrong (found X, expected Y). hint".
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message);
  ErrorCode code() const { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace nibble
