// Small files of the kernel, below a root folder. Internal to doctor_*.cc.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hadal {

// Without blanks at the end; at most 64 KiB. Nothing when it cannot be read.
std::optional<std::string> read_line_file(const std::filesystem::path& path);
std::optional<int64_t> read_number(const std::filesystem::path& path);
// "always [madvise] never" -> "madvise"; "" when nothing is marked.
std::string selected_word(std::string_view choices);
// Entries of a folder that are `prefix` and a number ("cpu12"), by number; empty when there is no such folder.
std::vector<std::filesystem::path> numbered_entries(const std::filesystem::path& folder, std::string_view prefix);
// The number behind "key" at the start of a line, as in /proc/meminfo.
std::optional<int64_t> number_after(std::string_view text, std::string_view key);
// Whether an executable of that name is in one of the usual folders below root.
bool has_program(const std::filesystem::path& root, std::string_view name);

}  // namespace hadal
