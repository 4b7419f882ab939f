// The certificate of the model that is about to be served.
#pragma once

#include <filesystem>
#include <optional>

#include "cli/open_model.h"
#include "eval/certificate.h"

namespace hadal {

// The folder's certificate for the chosen numerics. One that is about other weights or scales, or cannot be read, is
// ignored with a warning; numerics that round more than the checkpoint does are warned about when there is none.
std::optional<Certificate> look_up_certificate(const std::filesystem::path& dir, const NumericsChoice& numerics);

}  // namespace hadal
