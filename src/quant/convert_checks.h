// What hadal convert refuses before it opens a shard: options that contradict each other, folders inside each other,
// folders that are converted already.
#pragma once

#include <filesystem>
#include <optional>

#include "base/status.h"
#include "quant/convert.h"
#include "quant/convert_marker.h"

namespace hadal {

// Absolute, links resolved as far as the path exists, without a trailing slash.
std::filesystem::path canonical_folder(const std::filesystem::path& path);

// All errors are kInvalidArgument and say what to do.
Status check_convert_options(const ConvertOptions& options);
// Both canonical.
Status check_convert_folders(const std::filesystem::path& input, const std::filesystem::path& output);
// `marker` is that of the input's config.json.
Status check_convert_marker(const ConvertOptions& options, const std::filesystem::path& input,
                            const std::optional<ConvertMarker>& marker);

}  // namespace hadal
