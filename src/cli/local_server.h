// A model served inside this process, for programs that talk HTTP to it as to any other server: one path for both.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "cli/serve_options.h"
#include "server/server.h"

namespace hadal {

// A folder that only this user can enter, for the server's socket; removed at the end.
class PrivateFolder {
 public:
  static Expected<std::unique_ptr<PrivateFolder>> make();
  ~PrivateFolder();
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;

  const std::string& path() const { return path_; }

 private:
  explicit PrivateFolder(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

// Single-owner.
class LocalServer {
 public:
  // Loads the model, with a progress bar, and listens on a unix socket in `folder`. Errors: as open_model();
  // kInvalidArgument when the folder has no chat template.
  static Expected<std::unique_ptr<LocalServer>> start(const ServeOptions& options, const std::string& folder);
  const std::string& url() const { return url_; }  // "unix:/tmp/.../socket"

 private:
  LocalServer(std::unique_ptr<Server> server, std::string url) : server_(std::move(server)), url_(std::move(url)) {}

  const std::unique_ptr<Server> server_;  // aborts what runs when it goes
  const std::string url_;
};

}  // namespace hadal
