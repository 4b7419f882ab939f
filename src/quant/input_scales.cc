#include "quant/input_scales.h"

#include <cmath>

#include "base/file.h"
#include "base/json.h"
#include "formats/message_text.h"

namespace hadal {
namespace {

constexpr uint64_t kMaxFileBytes = 64u << 20;  // DeepSeek-R1 has 45,032 modules, 3 MB

std::string module_of_key(const std::string& key) {
  for (const std::string_view suffix : {".input_scale_inv", ".input_scale"}) {
    if (key.ends_with(suffix)) return key.substr(0, key.size() - suffix.size());
  }
  return key;
}

}  // namespace

Expected<InputScales> parse_input_scales(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(const Json json,
                         parse_json(text, {.max_bytes = kMaxFileBytes, .max_depth = 3, .refuse_duplicate_keys = true}));
  if (!json.is_object()) {
    return make_error(ErrorCode::kCorrupt, "{}, expected an object {{\"<module>\": scale}}", json.type_name());
  }
  InputScales scales;
  for (const auto& [key, value] : json.items()) {
    const Json& number = value.is_array() && value.size() == 1 ? value[0] : value;
    const float scale = number.is_number() ? number.get<float>() : std::nanf("");
    if (!(scale > 0) || !std::isfinite(scale)) {
      return make_error(ErrorCode::kInvalidArgument, "scale of {} is {}, expected a finite number above 0",
                        quote_name(key), show_json(value));
    }
    if (!scales.emplace(module_of_key(key), scale).second) {
      return make_error(ErrorCode::kInvalidArgument, "module {} is given twice", quote_name(module_of_key(key)));
    }
  }
  return scales;
}

Expected<InputScales> load_input_scales(const std::filesystem::path& path) {
  const auto text = read_file(path, kMaxFileBytes);
  if (!text) return tl::unexpected<Error>(text.error());
  const bool gzip = text->starts_with("\x1f\x8b"), pickle = text->starts_with('\x80');
  if (gzip || pickle) {
    return make_error(ErrorCode::kUnsupported,
                      "{}: a {} file, which this program does not read; make JSON of it, where PyTorch is installed: "
                      "python3 -c \"import {}pickle, json; json.dump({{k: float(v) for k, v in "
                      "pickle.load({}open('{}', 'rb')).items()}}, open('input_scales.json', 'w'))\"",
                      path.string(), gzip ? "gzip" : "pickle", gzip ? "gzip, " : "", gzip ? "gzip." : "",
                      path.filename().string());
  }
  auto scales = parse_input_scales(*text);
  if (!scales) return forward_error(std::move(scales), path.string());
  return scales;
}

}  // namespace hadal
