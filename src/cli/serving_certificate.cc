#include "cli/serving_certificate.h"

#include <utility>

#include "base/log.h"
#include "eval/content_hash.h"
#include "eval/numerics_hash.h"

namespace hadal {
namespace {

// Activations or cache in FP8: answers may be worse than the checkpoint's.
bool is_quantised(const NumericsChoice& numerics) {
  return !numerics.plan.layers.empty() || numerics.kv_dtype == DType::kF8E4M3;
}

Expected<std::optional<Certificate>> find(const std::filesystem::path& dir, const NumericsChoice& numerics) {
  std::error_code ignored;
  if (!std::filesystem::exists(dir / certificate_name(numerics.key), ignored)) return std::optional<Certificate>();
  CertificateSubject subject = {.numerics_key = numerics.key, .numerics_hash = numerics_hash(numerics.plan)};
  HADAL_ASSIGN_OR_RETURN(subject.model_hash, model_hash(dir));
  return find_certificate(dir, subject);
}

}  // namespace

std::optional<Certificate> look_up_certificate(const std::filesystem::path& dir, const NumericsChoice& numerics) {
  auto found = find(dir, numerics);
  if (!found) log_warning("certificate ignored: {}", found.error().message);
  if (found && *found) return *std::move(found);
  if (is_quantised(numerics)) {
    log_warning("no certificate says what numerics {} cost this model: `hadal certify` with the same flags makes one",
                numerics.key);
  }
  return std::nullopt;
}

}  // namespace hadal
