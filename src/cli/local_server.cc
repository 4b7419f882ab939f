#include "cli/local_server.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "cli/eval_model.h"
#include "cli/open_model.h"
#include "cli/sampling_defaults.h"
#include "cli/version.h"
#include "engine/engine.h"

namespace hadal {
namespace {

ServerOptions quiet_options(const ServeOptions& options, const std::string& socket) {
  ServerOptions server;
  server.unix_socket = socket;
  server.num_io_threads = 1;
  server.num_worker_threads = 1;
  server.served_model_names = {options.model};
  server.version = kVersion;
  server.reasoning_parser = options.reasoning_parser;
  server.enable_api_docs = false;
  server.enable_web_chat = false;
  server.log_access = false;
  server.log_stats = false;
  return server;
}

}  // namespace

Expected<std::unique_ptr<PrivateFolder>> PrivateFolder::make() {
  std::error_code failed;
  std::string name = (std::filesystem::temp_directory_path(failed) / "hadal-XXXXXX").string();
  if (failed || ::mkdtemp(name.data()) == nullptr) {
    return make_error(ErrorCode::kIo, "{}: cannot make a folder: {}", name,
                      failed ? failed.message() : std::strerror(errno));
  }
  return std::unique_ptr<PrivateFolder>(new PrivateFolder(std::move(name)));
}

PrivateFolder::~PrivateFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

Expected<std::unique_ptr<LocalServer>> LocalServer::start(const ServeOptions& options, const std::string& folder) {
  HADAL_RETURN_IF_ERROR(check_serve_options(options));
  HADAL_ASSIGN_OR_RETURN(OpenedModel opened, open_model(options));
  if (!opened.folder.chat_template) {
    return make_error(ErrorCode::kInvalidArgument, "{}: no chat template; give one with --chat-template FILE",
                      options.model);
  }
  HADAL_ASSIGN_OR_RETURN(const SamplingDefaults defaults,
                         choose_sampling_defaults(options.generation_config, options.override_generation_config,
                                                  opened.folder.generation));
  const std::string socket = folder + "/socket";
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<Server> server, Server::start(quiet_options(options, socket)));
  HADAL_ASSIGN_OR_RETURN(std::unique_ptr<ForwardModel> model, load_with_progress(options, opened));
  ServingContext context;
  HADAL_ASSIGN_OR_RETURN(context.engine,
                         make_engine(std::move(model), engine_options(options, opened), server->step_observer()));
  context.facts = model_facts(options, opened, defaults);
  context.tokenizer = std::move(opened.folder.tokenizer);
  context.chat_template = std::move(opened.folder.chat_template);
  server->attach(std::move(context));
  return std::unique_ptr<LocalServer>(new LocalServer(std::move(server), "unix:" + socket));
}

}  // namespace hadal
