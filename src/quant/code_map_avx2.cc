#include "quant/code_map_loops.h"

namespace hadal {

const CodeMapLoops* avx2_code_map_loops() {
#ifdef __AVX2__
  static constexpr CodeMapLoops loops = {CodeMapVectors<32>::exact, CodeMapVectors<32>::seed};
  return &loops;
#else
  return nullptr;
#endif
}

}  // namespace hadal
