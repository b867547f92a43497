#pragma once
// The tables as their files define them, with null entries. Only dispatch.cc looks at them.
#include "kernels/kernels.h"

namespace nibble {

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace nibble
