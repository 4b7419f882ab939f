// Agents on the nodes of a Ray cluster. A Python helper (ray/hadal_ray.py, a part of this program) that the interpreter
// of the `ray` command runs talks to Ray; this side starts the helper and talks to it through pipes. Nothing of Python
// is in this process, and the helper may be killed: then all nodes count as lost.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "cli/launch_plan.h"

namespace hadal {

extern const std::string_view kRayHelper;  // the helper's source

// The interpreter that the `ray` command on this search path ("/usr/bin:/opt/ray/bin") runs with, so that versions
// agree. Errors: kUnavailable saying what to install or where it was looked for.
Expected<std::string> find_ray_interpreter(const std::string& search_path);

// `helper`: command of a process that speaks launch_ray_lines.h. Starts nothing yet. prepare() starts it and waits for
// Ray, at most 5 minutes; it may be called once. A command "hadal" is this program's own path. Errors of its start()
// and prepare(): as launch_plan.h; kUnavailable with the helper's last words when it has ended.
std::unique_ptr<Launcher> make_ray_launcher(std::vector<std::string> helper);

// With the helper above and the `ray` command of $PATH. Errors: as find_ray_interpreter().
Expected<std::unique_ptr<Launcher>> make_ray_launcher();

}  // namespace hadal
