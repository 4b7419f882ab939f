#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/launch_ray.h"

namespace hadal {
namespace {

constexpr std::streamsize kHeadBytes = 4096;  // of the script, enough for its first two lines

bool is_executable(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored) && ::access(path.c_str(), X_OK) == 0;
}

// "" when there is none.
std::string find_program(const std::string& search_path, const std::string& name) {
  std::istringstream folders(search_path);
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::filesystem::path path = std::filesystem::path(folder.empty() ? "." : folder) / name;
    if (is_executable(path)) return path.string();
  }
  return "";
}

std::string first_word(const std::string& text) {
  std::string word;
  std::istringstream(text) >> word;
  return word;
}

// What a script's head names: "#!/opt/ray/bin/python3", "#!/usr/bin/env python3" or, pip's way around paths that are
// too long for the system, "#!/bin/sh" with exec and the path in quotes on the next line. "" when it names nothing.
std::string interpreter_of(const std::string& head) {
  std::istringstream lines(head);
  std::string first;
  std::string second;
  std::getline(lines, first);
  std::getline(lines, second);
  if (!first.starts_with("#!")) return "";
  constexpr std::string_view kExec = "'''exec' ";
  if (first == "#!/bin/sh" && second.starts_with(kExec)) {
    const std::string rest = second.substr(kExec.size());
    return rest.starts_with('"') ? rest.substr(1, rest.find('"', 1) - 1) : first_word(rest);
  }
  const std::string command = first.substr(2);
  const std::string word = first_word(command);
  if (word != "/usr/bin/env") return word;
  return first_word(command.substr(command.find(word) + word.size()));
}

}  // namespace

Expected<std::string> find_ray_interpreter(const std::string& search_path) {
  const std::string ray = find_program(search_path, "ray");
  if (ray.empty()) {
    return make_error(ErrorCode::kUnavailable,
                      "--distributed-executor-backend ray needs the ray command, and no folder of PATH={} has it: pip "
                      "install ray, or activate the environment that has it",
                      search_path.substr(0, 500));
  }
  std::string head(kHeadBytes, '\0');
  std::ifstream file(ray, std::ios::binary);
  file.read(head.data(), kHeadBytes);
  head.resize(static_cast<size_t>(file.gcount()));
  std::string interpreter = interpreter_of(head);
  // Version managers put a shell script in front of every command, python3 among them.
  if (!std::filesystem::path(interpreter).filename().string().starts_with("python")) {
    interpreter = std::filesystem::path(ray).parent_path() / "python3";
  }
  if (interpreter.find('/') == std::string::npos) interpreter = find_program(search_path, interpreter);
  if (is_executable(interpreter)) return interpreter;
  return make_error(ErrorCode::kUnavailable, "{} is run by {}, which is not there: install Ray again", ray,
                    interpreter.empty() ? "a Python of PATH" : interpreter.substr(0, 200));
}

}  // namespace hadal
