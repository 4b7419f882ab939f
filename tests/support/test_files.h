// Where tests find and put files.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"

namespace hadal {

// The repository's root.
std::filesystem::path source_dir();

// A file of the specification's data folder ($HADAL_SPEC_DATA, else ../shared/spec/data beside the repository), or
// nothing where it is absent; then the test must GTEST_SKIP() with skip_reason().
std::optional<std::filesystem::path> spec_data(const std::string& name);
std::string skip_reason(const std::string& name);

// Reads and parses, or fails the calling test by exception.
Json load_json(const std::filesystem::path& path);

// A fresh directory, removed with all its content at the end of scope.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace hadal

// HADAL_SPEC_DATA_OR_SKIP(path, "golden_yarn.json");
#define HADAL_SPEC_DATA_OR_SKIP(variable, name)                                           \
  const auto variable##_optional = ::hadal::spec_data(name);                              \
  if (!variable##_optional) GTEST_SKIP() << ::hadal::skip_reason(name);                   \
  const std::filesystem::path& variable = *variable##_optional
