// Certificates, transcripts, word problems and documents: files that somebody else may have written.
#include <cstdint>
#include <string_view>

#include "eval/certificate.h"
#include "eval/documents.h"
#include "eval/gsm8k_data.h"
#include "eval/gsm8k_score.h"
#include "eval/jsonl.h"
#include "eval/transcript.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto certificate = hadal::parse_certificate(text)) (void)certificate->summary();
  (void)hadal::parse_gsm8k(text, "fuzz");
  (void)hadal::parse_documents(text, "fuzz", true);
  (void)hadal::for_each_json_line(text, "fuzz", [](const hadal::Json& line, int64_t) -> hadal::Status {
    (void)hadal::parse_sample(line);
    return {};
  });
  (void)hadal::exact_match(hadal::strict_match(text), text);
  (void)hadal::exact_match(hadal::flexible_extract(text), text);
  return 0;
}
