// Numerics plans for the tiny models of tests.
#pragma once

#include "quant/numerics_plan.h"

namespace hadal {

NumericsPlan fp8_dynamic_plan();
NumericsPlan gaudi2_runtime_dequant_plan();
NumericsPlan gaudi2_dynamic_plan();
// Every module, attention and cache included, with made-up static scales of the size that the synthetic models need.
NumericsPlan gaudi2_static_plan();

}  // namespace hadal
