#include "support/test_files.h"

#include <cstdlib>
#include <stdexcept>

#include "base/file.h"

namespace hadal {
namespace fs = std::filesystem;

fs::path source_dir() { return HADAL_SOURCE_DIR; }

std::optional<fs::path> spec_data(const std::string& name) {
  const char* configured = std::getenv("HADAL_SPEC_DATA");
  const fs::path dir = configured ? fs::path(configured) : source_dir().parent_path() / "shared" / "spec" / "data";
  std::error_code ignored;
  if (!fs::exists(dir / name, ignored)) return std::nullopt;
  return dir / name;
}

std::string skip_reason(const std::string& name) {
  return "specification data not found: " + name + " (set HADAL_SPEC_DATA to its folder)";
}

Json load_json(const fs::path& path) {
  auto text = read_file(path, uint64_t{256} << 20);
  if (!text) throw std::runtime_error(text.error().message);
  auto parsed = parse_json(*text, {.max_bytes = size_t{256} << 20});
  if (!parsed) throw std::runtime_error(path.string() + ": " + parsed.error().message);
  return std::move(*parsed);
}

TempDir::TempDir() {
  std::string pattern = (fs::temp_directory_path() / "hadal_test_XXXXXX").string();
  if (!::mkdtemp(pattern.data())) throw std::runtime_error("cannot create a directory in " + pattern);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace hadal
