#pragma once

namespace hadal {
inline constexpr const char* kVersion = HADAL_VERSION;  // from project() in CMakeLists.txt
}
