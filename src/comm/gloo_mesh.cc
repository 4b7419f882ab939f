#include "comm/gloo_mesh.h"

#include <dirent.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <thread>
#include <vector>

#include "comm/rank_group.h"

namespace hadal {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kLook{100};  // between looks whether a rank that does not greet has given up
constexpr int kGlooPatience = 5;    // it waits for a connection so many times as long as for a message

class StoreAdapter final : public gloo::rendezvous::Store {
 public:
  StoreAdapter(KeyValueStore& store, std::string prefix, milliseconds timeout)
      : store_(store), prefix_(std::move(prefix)), timeout_(timeout) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    if (Status status = store_.set(prefix_ + key, {data.begin(), data.end()}); !status) {
      throw std::runtime_error(status.error().message);
    }
  }
  std::vector<char> get(const std::string& key) override {
    const auto value = store_.get(prefix_ + key, timeout_);
    if (!value) throw std::runtime_error(value.error().message);
    return {value->begin(), value->end()};
  }
  void wait(const std::vector<std::string>& keys) override {
    for (const std::string& key : keys) get(key);
  }
  void wait(const std::vector<std::string>& keys, const milliseconds&) override { wait(keys); }

 private:
  KeyValueStore& store_;
  const std::string prefix_;
  const milliseconds timeout_;
};

struct OpenSocket {
  int fd = -1;
  std::string name;  // "socket:[4711]", which is never given to another one
};

// Those of this process that are connected.
std::vector<OpenSocket> open_sockets() {
  std::vector<OpenSocket> sockets;
  DIR* folder = opendir("/proc/self/fd");
  if (folder == nullptr) return sockets;
  while (const dirent* entry = readdir(folder)) {
    const std::string_view number = entry->d_name;
    int fd = -1, type = 0;
    socklen_t length = sizeof type;
    std::from_chars(number.data(), number.data() + number.size(), fd);
    if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_STREAM) continue;
    sockaddr_storage peer{};
    length = sizeof peer;
    char name[64] = {};
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &length) != 0 ||
        readlinkat(dirfd(folder), entry->d_name, name, sizeof name - 1) <= 0) {
      continue;
    }
    sockets.push_back({fd, name});
  }
  closedir(folder);
  return sockets;
}

bool holds(int socket, const std::string& text) {
  char unread[512];
  const ssize_t got = recv(socket, unread, sizeof unread, MSG_PEEK | MSG_DONTWAIT);
  return got > 0 && std::string_view(unread, static_cast<size_t>(got)).find(text) != std::string_view::npos;
}

// Buffers of one peer; each holds a head and a chunk.
struct Line {
  int socket = -1;
  std::vector<std::byte> out, in;
  std::unique_ptr<gloo::transport::Buffer> sender, receiver;
};

class Mesh final : public GlooMesh {
 public:
  Mesh(std::shared_ptr<gloo::rendezvous::Context> context, const GlooGroupOptions& options);
  // Gloo waits for ever busily or not at all, and does not tell its sockets; with them we wait busily first and asleep
  // then. A socket is known by the greeting that arrives in it. `foreign`: those of before, which are not looked into:
  // a look takes an error away from who waits for it.
  Status find_sockets(KeyValueStore& store, const GlooGroupOptions& options, const std::vector<OpenSocket>& foreign);

  int rank() const override { return context_->rank; }
  int world_size() const override { return context_->size; }
  int64_t chunk_bytes() const override { return chunk_bytes_; }
  Status send(int peer, const MessageHead& head, std::span<const std::byte> data) override;
  Expected<const std::byte*> receive(int peer, MessageHead* head, milliseconds timeout) override;
  void give_up(const std::string& why) override;

 private:
  bool wait(int socket, milliseconds timeout) const;
  Status fail(std::string why);

  const std::shared_ptr<gloo::rendezvous::Context> context_;
  const int64_t chunk_bytes_;
  const std::chrono::microseconds spin_;
  std::vector<Line> lines_;
  Status failure_;
};

Mesh::Mesh(std::shared_ptr<gloo::rendezvous::Context> context, const GlooGroupOptions& options)
    : context_(std::move(context)), chunk_bytes_(options.chunk_bytes), spin_(options.spin), lines_(context_->size) {
  for (int peer = 0; peer < context_->size; ++peer) {
    if (peer == context_->rank) continue;
    auto& pair = context_->getPair(peer);
    pair->setSync(true, false);
    Line& line = lines_[peer];
    line.out.resize(sizeof(MessageHead) + chunk_bytes_);
    line.in.resize(line.out.size());
    line.sender = pair->createSendBuffer(0, line.out.data(), line.out.size());
    line.receiver = pair->createRecvBuffer(0, line.in.data(), line.in.size());
  }
}

// The system must buffer a whole message. Linux counts its own bookkeeping too, and therefore doubles what is asked
// for.
Status widen_socket(int socket, int64_t num_bytes) {
  const int wanted = static_cast<int>(num_bytes + (16 << 10));
  setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
  int allowed = 0;
  socklen_t length = sizeof allowed;
  getsockopt(socket, SOL_SOCKET, SO_SNDBUF, &allowed, &length);
  if (allowed / 2 >= wanted) return {};
  return make_error(ErrorCode::kResourceExhausted,
                    "sockets may buffer {} bytes, messages between ranks need {}: sysctl -w net.core.wmem_max={}",
                    allowed / 2, wanted, wanted);
}

// Of an operation; Gloo's own is only for connecting.
void set_socket_timeout(int socket, milliseconds timeout) {
  const timeval value{.tv_sec = timeout.count() / 1000, .tv_usec = timeout.count() % 1000 * 1000};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof value);
}

std::string greeting_key(const GlooGroupOptions& options, int rank) {
  return fmt::format("{}greeting/{}", options.prefix, rank);
}

std::string could_not_connect(int peer) {
  return fmt::format("rank {} could not connect to all others: see its message", peer);
}

Status Mesh::find_sockets(KeyValueStore& store, const GlooGroupOptions& options,
                          const std::vector<OpenSocket>& foreign) {
  const auto is_foreign = [&](const OpenSocket& socket) {
    return std::any_of(foreign.begin(), foreign.end(), [&](const auto& other) { return other.name == socket.name; });
  };
  const auto deadline = Clock::now() + options.join_timeout;
  const auto greeting = [](const std::string& token, int to) { return fmt::format("{} to {}.", token, to); };
  const std::string token = make_rank_token();
  // From here on this rank's pairs are in sync mode.
  HADAL_RETURN_IF_ERROR(store.set(greeting_key(options, rank()), token));
  std::vector<std::string> expected(world_size());
  for (int peer = 0; peer < world_size(); ++peer) {
    if (peer == rank()) continue;
    HADAL_ASSIGN_OR_RETURN(const std::string theirs, store.get(greeting_key(options, peer), options.join_timeout));
    if (theirs.empty()) return fail(could_not_connect(peer));
    expected[peer] = greeting(theirs, rank());
    const std::string ours = greeting(token, peer);
    HADAL_RETURN_IF_ERROR(send(peer, {}, std::as_bytes(std::span(ours))));
  }
  for (int peer = 0; peer < world_size(); ++peer) {
    Line& line = lines_[peer];
    auto next_look = Clock::now() + kLook;
    while (peer != rank() && line.socket < 0) {
      for (const OpenSocket& socket : open_sockets()) {
        if (!is_foreign(socket) && holds(socket.fd, expected[peer])) line.socket = socket.fd;
      }
      if (line.socket >= 0) break;
      if (Clock::now() >= deadline) return fail(fmt::format("rank {} connected, but does not greet", peer));
      if (Clock::now() >= next_look) {
        next_look = Clock::now() + kLook;
        const auto theirs = store.get(greeting_key(options, peer), milliseconds(0));
        if (theirs && theirs->empty()) return fail(could_not_connect(peer));
      }
      std::this_thread::sleep_for(milliseconds(1));
    }
    if (peer == rank()) continue;
    MessageHead head;
    HADAL_RETURN_IF_ERROR(receive(peer, &head, milliseconds(1'000)));
    HADAL_RETURN_IF_ERROR(widen_socket(line.socket, static_cast<int64_t>(line.out.size())));
    set_socket_timeout(line.socket, options.timeout);
  }
  return {};
}

Status Mesh::fail(std::string why) {
  failure_ = make_error(ErrorCode::kUnavailable, "{}", std::move(why));
  return failure_;
}

Status Mesh::send(int peer, const MessageHead& head, std::span<const std::byte> data) {
  if (!failure_) return failure_;
  Line& line = lines_[peer];
  std::memcpy(line.out.data(), &head, sizeof head);
  if (!data.empty()) std::memcpy(line.out.data() + sizeof head, data.data(), data.size());
  try {
    line.sender->send(0, sizeof head + data.size());
    line.sender->waitSend();
  } catch (const std::exception& e) {
    return fail(fmt::format("cannot send to rank {}: {}", peer, e.what()));
  }
  return {};
}

// Whether something (the end, too) has come.
bool Mesh::wait(int socket, milliseconds timeout) const {
  const auto begin = Clock::now();
  do {
    std::byte first;
    const ssize_t got = recv(socket, &first, 1, MSG_PEEK | MSG_DONTWAIT);
    if (got >= 0 || (errno != EAGAIN && errno != EINTR)) return true;
  } while (Clock::now() - begin < spin_);
  for (;;) {
    pollfd entry{.fd = socket, .events = POLLIN, .revents = 0};
    const auto left = timeout - std::chrono::duration_cast<milliseconds>(Clock::now() - begin);
    if (left.count() <= 0) return false;
    if (poll(&entry, 1, static_cast<int>(left.count())) > 0) return true;
  }
}

Expected<const std::byte*> Mesh::receive(int peer, MessageHead* head, milliseconds timeout) {
  if (!failure_) return forward_error(Status(failure_));
  Line& line = lines_[peer];
  if (!wait(line.socket, timeout)) {
    return forward_error(fail(fmt::format(
        "waited {} ms for rank {}, which is connected but does not come (frozen, or the network between is down)",
        timeout.count(), peer)));
  }
  try {
    line.receiver->waitRecv();
  } catch (const std::exception& e) {
    return forward_error(fail(fmt::format("lost rank {}: {}", peer, e.what())));
  }
  std::memcpy(head, line.in.data(), sizeof *head);
  const std::byte* chunk = line.in.data() + sizeof *head;
  if (head->op == kFarewell) {
    const size_t length = std::min<uint64_t>(head->num_bytes, chunk_bytes_);
    const std::string_view why(reinterpret_cast<const char*>(chunk), length);
    return forward_error(fail(fmt::format("rank {} gave up: {}", peer, why)));
  }
  return chunk;
}

// Without closing: a peer that writes would lose the farewell with the connection.
void Mesh::give_up(const std::string& why) {
  if (failure_) failure_ = make_error(ErrorCode::kUnavailable, "{}", why);
  const size_t length = std::min<size_t>({why.size(), 4096, static_cast<size_t>(chunk_bytes_)});
  for (Line& line : lines_) {
    pollfd entry{.fd = line.socket, .events = POLLOUT, .revents = 0};
    if (line.socket < 0 || poll(&entry, 1, 0) != 1 || entry.revents != POLLOUT) continue;
    const MessageHead head{kFarewell, 0, length, 0};
    std::memcpy(line.out.data(), &head, sizeof head);
    std::memcpy(line.out.data() + sizeof head, why.data(), length);
    try {
      line.sender->send(0, sizeof head + length);
      line.sender->waitSend();
      shutdown(line.socket, SHUT_WR);
    } catch (const std::exception&) {  // that peer knows already
    }
  }
}

// Gloo writes to connections whose other side may have gone, which must be an error and not the end of the process.
void ignore_broken_pipes() {
  struct sigaction now {};
  if (sigaction(SIGPIPE, nullptr, &now) == 0 && now.sa_handler == SIG_DFL) signal(SIGPIPE, SIG_IGN);
}

Expected<std::shared_ptr<GlooMesh>> connect_all(KeyValueStore& store, const GlooGroupOptions& options) {
  if (options.world_size < 1 || options.rank < 0 || options.rank >= options.world_size || options.chunk_bytes < 256) {
    return make_error(ErrorCode::kInvalidArgument, "rank {} of {}, chunks of {} bytes", options.rank,
                      options.world_size, options.chunk_bytes);
  }
  const std::vector<OpenSocket> foreign = open_sockets();
  try {
    gloo::transport::tcp::attr attributes(options.address.c_str());
    std::shared_ptr<gloo::transport::Device> device = gloo::transport::tcp::CreateDevice(attributes);
    auto context = std::make_shared<gloo::rendezvous::Context>(options.rank, options.world_size);
    context->setTimeout(std::max(milliseconds(1), std::min(options.timeout, options.join_timeout / kGlooPatience)));
    StoreAdapter adapter(store, options.prefix, options.join_timeout);
    context->connectFullMesh(adapter, device);
    auto mesh = std::make_shared<Mesh>(std::move(context), options);
    HADAL_RETURN_IF_ERROR(mesh->find_sockets(store, options, foreign));
    return mesh;
  } catch (const std::exception& e) {
    return make_error(ErrorCode::kUnavailable, "rank {} of {} at {} cannot connect to the others: {}", options.rank,
                      options.world_size, options.address, e.what());
  }
}

}  // namespace

Expected<std::shared_ptr<GlooMesh>> GlooMesh::connect(KeyValueStore& store, const GlooGroupOptions& options) {
  ignore_broken_pipes();
  auto mesh = connect_all(store, options);
  if (!mesh && mesh.error().code != ErrorCode::kInvalidArgument) {
    (void)store.set(greeting_key(options, options.rank), "");  // nobody waits for this rank any longer
  }
  return mesh;
}

}  // namespace hadal
