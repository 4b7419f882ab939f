// The file that QUANT_CONFIG names: no input may crash its reader, its regular expressions or the scale rules.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "formats/inc_config.h"
#include "quant/module_filter.h"
#include "quant/scale_method.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > (1 << 16)) return 0;
  const auto config = hadal::parse_inc_config({reinterpret_cast<const char*>(data), size});
  if (!config) {
    if (config.error().message.empty()) std::abort();
    return 0;
  }
  for (const hadal::FpRange device : {hadal::FpRange::kGaudi2, hadal::FpRange::kGaudi3}) {
    const auto rules = hadal::inc_scale_rules(*config, device, {});
    if (!rules && rules.error().message.empty()) std::abort();
  }
  const auto filter = hadal::ModuleFilter::compile(config->allowlist, config->blocklist);
  if (!filter) return filter.error().message.empty() ? std::abort(), 0 : 0;
  const auto selected = filter->selects("model.layers.3.mlp.experts.moe_op.w13_list.0", "MoeFP8Matmul");
  if (!selected && selected.error().message.empty()) std::abort();
  return 0;
}
