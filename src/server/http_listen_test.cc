// Where the HTTP server listens: TCP, a unix socket, TLS.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"
#include "server/http_test_support.h"
#include "server/tls_test_support.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using std::chrono::milliseconds;

class UnixSocketTest : public HttpTest {
 protected:
  HttpServerOptions options() const { return {.unix_socket = path_, .limits = {}}; }
  void expect_refused(const std::string& path, const std::string& fragment) {
    const auto second = HttpServer::start({.unix_socket = path});
    ASSERT_FALSE(second.has_value());
    EXPECT_NE(second.error().message.find(fragment), std::string::npos) << second.error().message;
  }
  const TempDir dir_;
  const std::string path_ = (dir_.path() / "s").string();
};

TEST_F(UnixSocketTest, ServesAndRemovesItsFile) {
  start_with(options());
  TestClient client(path_);
  client.send(http_request("POST", "/echo", "one"));
  EXPECT_EQ(client.read_reply().body, "POST/echo|one");
  EXPECT_EQ(std::filesystem::status(path_).permissions(), std::filesystem::perms(0660));
  EXPECT_EQ(server_->port(), 0);
  expect_refused(path_, "another server listens there");
  server_->stop();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(UnixSocketTest, StaleFilesAreReplacedOthersAreNot) {
  {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::close(fd);  // leaves the file behind, as a killed server does
  }
  start_with(options());
  EXPECT_EQ(TestClient(path_).try_send("GET / HTTP/1.1\r\n"), true);
  std::filesystem::remove(path_);
  ASSERT_TRUE(write_file_atomically(path_, "mine"));
  server_->stop();
  EXPECT_TRUE(std::filesystem::exists(path_));  // not its own any more
  expect_refused(path_, "no socket");
  expect_refused((dir_.path() / std::string(200, 'x')).string(), "at most 107");
  expect_refused((dir_.path() / "absent" / "s").string(), "absent/s");
}

// The in-memory client's bytes through a real connection.
class HttpsTest : public HttpTest {
 protected:
  void start_tls(HttpLimits limits = {}) {
    const TestCertificate own = make_test_certificate("localhost");
    ASSERT_TRUE(write_file_atomically(dir_.path() / "both.pem", own.certificate_pem + own.key_pem));
    HttpServerOptions options{.host = "127.0.0.1", .port = 0, .limits = limits};
    options.tls.certificate_file = (dir_.path() / "both.pem").string();
    start_with(std::move(options));
  }
  // What the server sends until `until` comes, or it ends.
  std::string talk(TestClient* socket, TestTlsClient* tls, const std::string& until) {
    while (tls->received().find(until) == std::string::npos && !tls->ended() && !tls->failed()) {
      tls->advance();
      const std::string output = tls->take_output();
      if (!output.empty()) {
        socket->send(output);
        continue;
      }
      const std::string more = socket->read_some();
      if (more.empty()) break;
      tls->feed(more);
      tls->advance();
    }
    return tls->received();
  }
  const TempDir dir_;
};

TEST_F(HttpsTest, RequestsAndStreams) {
  start_tls();
  TestClient socket(port());
  TestTlsClient tls;
  tls.write(http_request("POST", "/echo", "hello"));
  EXPECT_NE(talk(&socket, &tls, "POST/echo|hello").find("200 OK"), std::string::npos);
  tls.write(http_request("GET", "/stream"));
  tls.advance();
  socket.send(tls.take_output());
  ASSERT_TRUE(eventually([&] { return num_held() == 1; }));
  held_[0]->write("piece");
  held_[0]->finish();
  EXPECT_TRUE(talk(&socket, &tls, "0\r\n\r\n").ends_with("5\r\npiece\r\n0\r\n\r\n"));
  tls.write(http_request("GET", "/bye", "", "Connection: close\r\n"));
  talk(&socket, &tls, "never");
  EXPECT_TRUE(tls.ended());  // the end is said, so that nobody can cut an answer short unseen
}

TEST_F(HttpsTest, PlainHttpIsToldSo) {
  start_tls();
  const HttpReply reply = http_call(port(), "GET", "/x");
  EXPECT_EQ(reply.status, 400);
  EXPECT_NE(reply.body.find("https://"), std::string::npos);
  TestClient rubbish(port());
  rubbish.send(std::string("\x16\x03\x01\x00\x04", 5) + "oops");
  EXPECT_EQ(rubbish.read_reply().status, 0);
  start_tls({.header_timeout = milliseconds(500)});
  EXPECT_TRUE(TestClient(port()).closed_by_peer());  // no handshake in time
  EXPECT_EQ(statuses(), std::vector<int>{});
}

TEST_F(HttpTest, BusyPortIsAnError) {
  start();
  HttpServerOptions options{.host = "127.0.0.1", .port = port()};
  const auto second = HttpServer::start(options);
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message.find(std::to_string(port())), std::string::npos);
}

}  // namespace
}  // namespace hadal
