// What was measured of a model under one numerics profile, in one JSON file that lies in the model's folder. `hadal
// certify` writes it, `hadal serve` looks for it. Schema 1:
//   hadal_certificate  1
//   model              {path, hash}
//   numerics           {key, hash (numerics_hash()), summary, kv_cache}
//   made               {hadal, date (UTC), kernels, cpu}
//   gsm8k, kl          as `hadal eval gsm8k|kl --json` write them; gsm8k may be null
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/status.h"

namespace hadal {

inline constexpr int kCertificateSchema = 1;
inline constexpr uint64_t kMaxCertificateBytes = uint64_t{4} << 20;

struct Certificate {
  std::filesystem::path path;
  std::string model_hash;  // model_hash() of the folder that was measured
  std::string numerics_key, numerics_hash;
  Json document;  // all of it

  // "gsm8k 94.4 +- 1.0 %, KL 1.2e-04, top-1 99.50 %, perplexity 1.013, of "2026-11-28T12:00:00Z"": what is there.
  std::string summary() const;
};

// hadal_certificate.<numerics key>.json
std::string certificate_name(std::string_view numerics_key);

// Errors: kCorrupt (no certificate of this schema), naming what is missing.
Expected<Certificate> parse_certificate(std::string_view text);

struct CertificateSubject {
  std::string model_hash, numerics_key, numerics_hash;
};

// The certificate in `dir` for this key, or nothing where there is no such file. Errors: as read_file() and
// parse_certificate(); kInvalidArgument when it is about another model, or other scales under the same key.
Expected<std::optional<Certificate>> find_certificate(const std::filesystem::path& dir,
                                                      const CertificateSubject& subject);

}  // namespace hadal
