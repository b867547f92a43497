#pragma once
// Everything: quantize, run and evaluate transformer models on CPUs.
#include "nibble/bitsandbytes_config.h"
#include "nibble/dtype.h"
#include "nibble/error.h"
#include "nibble/evaluate.h"
#include "nibble/formats.h"
#include "nibble/generate.h"
#include "nibble/inspect.h"
#include "nibble/model.h"
#include "nibble/progress.h"
#include "nibble/quantize.h"
#include "nibble/system.h"
#include "nibble/version.h"
