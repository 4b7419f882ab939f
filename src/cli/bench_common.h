// What the benchmarks' commands share: exit codes, JSON files, list flags.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace hadal {

// Of --kv-cache-dtype.
inline constexpr const char* kKvCacheDTypeHelp = "auto or bfloat16; fp8 or fp8_e4m3 (E4M3, scale 1): half the bytes";

// Prints "hadal: <message>" and returns the exit code that fits.
int report_bench_error(const Error& error);

// "128,512,2048", as one argument.
CLI::Option* add_list_option(CLI::App& command, const std::string& name, std::vector<int64_t>& values,
                             const std::string& help);

// Indented, atomically. Nothing for an empty path.
Status write_json_file(const std::string& path, const Json& json);
Expected<Json> read_json_file(const std::string& path);

// Prints two results of a benchmark side by side. Returns an exit code.
int print_comparison(const std::string& file_a, const std::string& file_b);

}  // namespace hadal
