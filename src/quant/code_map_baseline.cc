#include "quant/code_map_loops.h"

namespace hadal {

const CodeMapLoops& baseline_code_map_loops() {
  static constexpr CodeMapLoops loops = {CodeMapVectors<16>::exact, CodeMapVectors<16>::seed};
  return loops;
}

}  // namespace hadal
