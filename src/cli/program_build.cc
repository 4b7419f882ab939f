#include "cli/program_build.h"

#include "base/file.h"
#include "cli/version.h"
#include "eval/content_hash.h"

namespace hadal {

Expected<std::string> binary_hash() {
  HADAL_ASSIGN_OR_RETURN(const std::string bytes, read_file("/proc/self/exe", uint64_t{2} << 30));
  return content_hash(bytes);
}

Expected<std::string> program_build() {
  HADAL_ASSIGN_OR_RETURN(const std::string hash, binary_hash());
  return fmt::format("{}, build {}", kVersion, hash.substr(0, 12));
}

}  // namespace hadal
