// bench_tokenizer --model DIR --text FILE: encoding speed of one thread, one JSON object on stdout.
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "text/tokenizer.h"

namespace hadal {
namespace {

struct Options {
  std::filesystem::path model_dir, text_path, ids_path;
  size_t document_bytes = 10'000;
  int repetitions = 3;
};

// Cuts before the character that would make a document longer than max_bytes. compare_tokenizer.py does the same.
std::vector<std::string_view> cut_documents(std::string_view text, size_t max_bytes) {
  std::vector<std::string_view> documents;
  while (!text.empty()) {
    size_t size = std::min(text.size(), max_bytes);
    while (size > 1 && size < text.size() && (static_cast<uint8_t>(text[size]) & 0xC0) == 0x80) --size;
    documents.push_back(text.substr(0, size));
    text.remove_prefix(size);
  }
  return documents;
}

// CPU time: other work on the machine does not count.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// FNV-1a over 32-bit words; a word of ones ends each document.
class Checksum {
 public:
  void add(const std::vector<int32_t>& ids) {
    for (const int32_t id : ids) add(static_cast<uint32_t>(id));
    add(UINT32_MAX);
  }
  uint64_t value() const { return value_; }

 private:
  void add(uint32_t word) { value_ = (value_ ^ word) * 0x100000001B3u; }
  uint64_t value_ = 0xCBF29CE484222325u;
};

Expected<Json> run(const Options& options) {
  HADAL_ASSIGN_OR_RETURN(const auto tokenizer, Tokenizer::load(options.model_dir));
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(options.text_path, Tokenizer::kMaxTextBytes));
  const auto documents = cut_documents(text, options.document_bytes);

  std::vector<double> mb_per_s;
  std::vector<std::vector<int32_t>> ids(documents.size());
  for (int repetition = 0; repetition < options.repetitions; ++repetition) {
    const double begin = thread_seconds();
    for (size_t i = 0; i < documents.size(); ++i) {
      HADAL_ASSIGN_OR_RETURN(ids[i], tokenizer->encode(documents[i], {}));
    }
    mb_per_s.push_back(static_cast<double>(text.size()) / 1e6 / (thread_seconds() - begin));
  }
  std::sort(mb_per_s.begin(), mb_per_s.end());

  Checksum checksum;
  size_t num_tokens = 0;
  for (const auto& document : ids) {
    checksum.add(document);
    num_tokens += document.size();
  }
  if (!options.ids_path.empty()) {
    std::ofstream file(options.ids_path, std::ios::binary);
    for (const auto& document : ids) {
      file.write(reinterpret_cast<const char*>(document.data()),
                 static_cast<std::streamsize>(document.size() * sizeof(int32_t)));
    }
    if (!file.flush()) return make_error(ErrorCode::kIo, "{}: cannot write", options.ids_path.string());
  }
  return Json{
      {"bytes", text.size()},
      {"documents", documents.size()},
      {"tokens", num_tokens},
      {"mb_per_s", {{"median", mb_per_s[mb_per_s.size() / 2]}, {"min", mb_per_s.front()}, {"max", mb_per_s.back()}}},
      {"checksum", fmt::format("{:016x}", checksum.value())}};
}

}  // namespace
}  // namespace hadal

int main(int argc, char** argv) {
  hadal::Options options;
  CLI::App app("Encodes a text with a model's tokenizer on one thread and prints the speed as JSON.");
  app.add_option("--model", options.model_dir, "folder with tokenizer.json or tiktoken.model")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--text", options.text_path, "UTF-8 text")->required()->check(CLI::ExistingFile);
  app.add_option("--ids", options.ids_path, "also write the ids here, 32 bits each");
  app.add_option("--document-bytes", options.document_bytes, "encode pieces of at most this size")
      ->check(CLI::Range(size_t{4}, hadal::Tokenizer::kMaxTextBytes))
      ->capture_default_str();
  app.add_option("--repetitions", options.repetitions)->check(CLI::PositiveNumber)->capture_default_str();
  CLI11_PARSE(app, argc, argv);

  const auto result = hadal::run(options);
  if (!result) {
    std::fprintf(stderr, "error: %s\n", result.error().message.c_str());
    return 1;
  }
  std::printf("%s\n", result->dump().c_str());
  return 0;
}
