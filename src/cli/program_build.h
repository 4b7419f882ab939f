// Which program this is, for comparison between ranks: two builds of one version may compute other bits.
#pragma once

#include <string>

#include "base/status.h"

namespace hadal {

// content_hash() of the running program's file. Reads it: milliseconds. Errors: kIo.
Expected<std::string> binary_hash();
// "0.1.0, build 0f3a9c21d4e7".
Expected<std::string> program_build();

}  // namespace hadal
