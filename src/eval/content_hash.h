// Fingerprints of files and models, for telling whether two results are about the same thing. Not for security.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

// XXH3-128 as 32 hexadecimal digits.
std::string content_hash(std::string_view bytes);

// Of a model folder: config.json, the index, and of every shard its name, size, header and 192 KiB of its weights.
// Reads no more than that. Errors: as opening the folder.
Expected<std::string> model_hash(const std::filesystem::path& dir);

}  // namespace hadal
