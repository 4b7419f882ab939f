#include "eval/certificate.h"

#include <tuple>
#include <utility>

#include "base/file.h"
#include "formats/message_text.h"

namespace hadal {
namespace {

// Unknown members are kept: they are shown, not acted on.
constexpr JsonLimits kLimits = {
    .max_bytes = kMaxCertificateBytes, .max_depth = 16, .max_values = 200'000, .refuse_duplicate_keys = true};

// The member of an object, or null.
const Json& member(const Json& value, const char* name) {
  static const Json kNull;
  if (!value.is_object()) return kNull;
  const auto found = value.find(name);
  return found == value.end() ? kNull : *found;
}

Expected<std::string> text_at(const Json& document, const char* group, const char* name) {
  const Json& value = member(member(document, group), name);
  if (value.is_string() && !value.get_ref<const std::string&>().empty()) return value.get<std::string>();
  return make_error(ErrorCode::kCorrupt, "no certificate: {}.{} must be a string", group, name);
}

std::optional<double> number_at(const Json& value, const char* name) {
  const Json& found = member(value, name);
  return found.is_number() ? std::optional(found.get<double>()) : std::nullopt;
}

}  // namespace

std::string certificate_name(std::string_view numerics_key) {
  return fmt::format("hadal_certificate.{}.json", numerics_key);
}

std::string Certificate::summary() const {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : ", ") + part; };
  const Json& strict = member(member(document, "gsm8k"), "strict_match");
  const Json& kl = member(document, "kl");
  const Json& made = member(document, "made");
  if (const auto share = number_at(strict, "accuracy")) {
    const auto error = number_at(strict, "stderr");
    add(fmt::format("gsm8k {:.1f}{} %", 100 * *share, error ? fmt::format(" +- {:.1f}", 100 * *error) : ""));
  }
  if (const auto mean = number_at(kl, "mean_kl")) add(fmt::format("KL {:.1e}", *mean));
  if (const auto top = number_at(kl, "top1_agreement")) add(fmt::format("top-1 {:.2f} %", 100 * *top));
  if (const auto perplexity = number_at(kl, "perplexity")) add(fmt::format("perplexity {:.3f}", *perplexity));
  const Json& date = member(made, "date");
  if (date.is_string()) add("of " + show_json(date));
  return text;
}

Expected<Certificate> parse_certificate(std::string_view text) {
  HADAL_ASSIGN_OR_RETURN(Json document, parse_json(text, kLimits));
  const Json& schema = member(document, "hadal_certificate");
  if (!schema.is_number_unsigned() || schema != kCertificateSchema) {
    return make_error(ErrorCode::kCorrupt, "no certificate of schema {}: hadal_certificate is {}", kCertificateSchema,
                      show_json(schema));
  }
  Certificate certificate;
  HADAL_ASSIGN_OR_RETURN(certificate.model_hash, text_at(document, "model", "hash"));
  HADAL_ASSIGN_OR_RETURN(certificate.numerics_key, text_at(document, "numerics", "key"));
  HADAL_ASSIGN_OR_RETURN(certificate.numerics_hash, text_at(document, "numerics", "hash"));
  certificate.document = std::move(document);
  return certificate;
}

Expected<std::optional<Certificate>> find_certificate(const std::filesystem::path& dir,
                                                      const CertificateSubject& subject) {
  const std::filesystem::path path = dir / certificate_name(subject.numerics_key);
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::optional<Certificate>();
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxCertificateBytes));
  auto certificate = parse_certificate(text);
  if (!certificate) return forward_error(std::move(certificate), path.string());
  const std::tuple<const char*, std::string_view, std::string_view> facts[] = {
      {"weights", certificate->model_hash, subject.model_hash},
      {"numerics", certificate->numerics_key, subject.numerics_key},
      {"scales", certificate->numerics_hash, subject.numerics_hash}};
  for (const auto& [name, there, here] : facts) {
    if (there == here) continue;
    return make_error(ErrorCode::kInvalidArgument,
                      "{}: is about other {} ({}, here {}); make it anew with hadal certify", path.string(), name,
                      quote_name(there), quote_name(here));
  }
  certificate->path = path;
  return std::optional<Certificate>(*std::move(certificate));
}

}  // namespace hadal
