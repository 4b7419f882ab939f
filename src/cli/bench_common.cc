#include "cli/bench_common.h"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "base/file.h"
#include "bench/compare.h"
#include "cli/command.h"

namespace hadal {

int report_bench_error(const Error& error) {
  std::fprintf(stderr, "hadal: %s\n", error.message.c_str());
  return error.code == ErrorCode::kInvalidArgument ? kExitBadUsage : kExitFailed;
}

CLI::Option* add_list_option(CLI::App& command, const std::string& name, std::vector<int64_t>& values,
                             const std::string& help) {
  return command.add_option(name, values, help)->delimiter(',')->allow_extra_args(false)->capture_default_str();
}

Status write_json_file(const std::string& path, const Json& json) {
  // A path given on the command line need not be UTF-8.
  constexpr auto kReplace = Json::error_handler_t::replace;
  return path.empty() ? Status() : write_file_atomically(path, json.dump(2, ' ', false, kReplace) + "\n");
}

Expected<Json> read_json_file(const std::string& path) {
  constexpr uint64_t kMaxBytes = uint64_t{64} << 20;
  HADAL_ASSIGN_OR_RETURN(const std::string text, read_file(path, kMaxBytes));
  auto json = parse_json(text);
  if (!json) return forward_error(std::move(json), path);
  return json;
}

int print_comparison(const std::string& file_a, const std::string& file_b) {
  const auto a = read_json_file(file_a), b = read_json_file(file_b);
  if (!a) return report_bench_error(a.error());
  if (!b) return report_bench_error(b.error());
  const auto text = compare_reports(*a, *b);
  if (!text) return report_bench_error(text.error());
  fmt::print("A {}\nB {}\n\n{}", file_a, file_b, *text);
  return kExitOk;
}

}  // namespace hadal
