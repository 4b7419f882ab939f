#include "quant/convert_checks.h"

#include <algorithm>
#include <utility>

namespace hadal {

namespace fs = std::filesystem;

namespace {

bool is_inside(const fs::path& inner, const fs::path& outer) {
  const auto [inner_at, outer_at] = std::mismatch(inner.begin(), inner.end(), outer.begin(), outer.end());
  return outer_at == outer.end();
}

}  // namespace

fs::path canonical_folder(const fs::path& path) {
  std::error_code code;
  fs::path absolute = fs::weakly_canonical(fs::absolute(path, code), code);
  if (code) absolute = fs::absolute(path, code).lexically_normal();
  return absolute.has_filename() ? absolute : absolute.parent_path();
}

Status check_convert_options(const ConvertOptions& options) {
  const auto refuse = [](const char* text) { return make_error(ErrorCode::kInvalidArgument, "{}", text); };
  if (options.num_threads < 1 || options.num_threads > kMaxConvertThreads) {
    return make_error(ErrorCode::kInvalidArgument, "{} threads, expected 1 to {}", options.num_threads,
                      kMaxConvertThreads);
  }
  if (options.method != ConvertMethod::kChannel && options.target == FpRange::kGaudi3) {
    return refuse(
        "Gaudi 3 reads E4M3 up to 448: the official folder is right as it is, there is nothing to convert; "
        "--method channel makes a checkpoint with one scale a row");
  }
  if (options.bug_compatible && options.method != ConvertMethod::kSeed) {
    return refuse("--bug-compatible belongs to --method seed");
  }
  if (!options.input_scales.empty() && options.method != ConvertMethod::kChannel) {
    return refuse("--input-scales belongs to --method channel");
  }
  if (options.reverse && options.method != ConvertMethod::kExact) {
    return refuse("--reverse undoes --method exact only; seed and channel round most codes and keep nothing of them");
  }
  return {};
}

Status check_convert_folders(const fs::path& input, const fs::path& output) {
  if (is_inside(input, output) || is_inside(output, input)) {
    return make_error(ErrorCode::kInvalidArgument,
                      "input {} and output {}: one is the other or lies inside it; give another output folder",
                      input.string(), output.string());
  }
  return {};
}

Status check_convert_marker(const ConvertOptions& options, const fs::path& input,
                            const std::optional<ConvertMarker>& marker) {
  const bool is_exact = marker && marker->method == ConvertMethod::kExact;
  if (options.reverse && !marker) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: config.json has no \"{}\"; --reverse takes what hadal convert --method exact has written",
                      input.string(), kConvertMarkerKey);
  }
  if (options.reverse && !is_exact) {
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: converted with --method {}, which rounds most codes and cannot be undone; fetch the "
                      "official folder",
                      input.string(), convert_method_name(marker->method));
  }
  if (!options.reverse && marker) {
    return make_error(ErrorCode::kInvalidArgument, "{}: already converted (config.json: {}); use it as it is{}",
                      input.string(), dump_json(marker_to_json(*marker)),
                      is_exact ? ", or get the official folder back with --reverse" : "");
  }
  return {};
}

}  // namespace hadal
