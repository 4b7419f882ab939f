// TLS in memory: two sessions of a library's client and our server, without sockets; and what bad files are told.
#include "server/tls.h"

#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "base/file.h"
#include "server/tls_test_support.h"
#include "support/test_files.h"

namespace hadal {
namespace {

using State = TlsSession::State;

class TlsTest : public ::testing::Test {
 protected:
  std::string file(const std::string& name, const std::string& content) {
    const auto path = dir_.path() / name;
    EXPECT_TRUE(write_file_atomically(path, content));
    return path.string();
  }
  void expect_refused(const TlsOptions& options, const std::string& fragment) {
    const auto loaded = TlsContext::load(options);
    ASSERT_FALSE(loaded.has_value()) << fragment;
    EXPECT_EQ(loaded.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(loaded.error().message.find(fragment), std::string::npos) << loaded.error().message;
  }

  const TempDir dir_;
  const TestCertificate own_ = make_test_certificate("localhost");
  const TestCertificate other_ = make_test_certificate("other");
};

TEST_F(TlsTest, BadFilesAreNamed) {
  const std::string certificate = file("cert.pem", own_.certificate_pem);
  const std::string key = file("key.pem", own_.key_pem);
  const std::string absent = (dir_.path() / "absent.pem").string();
  const std::string text = file("text.pem", "hello\n");
  EXPECT_TRUE(TlsContext::load({.certificate_file = certificate, .key_file = key}).has_value());
  const std::string both = file("both.pem", own_.certificate_pem + own_.key_pem);
  EXPECT_TRUE(TlsContext::load({.certificate_file = both}).has_value());
  expect_refused({.certificate_file = absent, .key_file = key}, absent);
  expect_refused({.certificate_file = text, .key_file = key}, text);
  expect_refused({.certificate_file = certificate, .key_file = absent}, absent);
  expect_refused({.certificate_file = certificate, .key_file = text}, text);
  expect_refused({.certificate_file = certificate, .key_file = dir_.path().string()}, "not a file");
  expect_refused({.certificate_file = certificate, .key_file = file("other.pem", other_.key_pem)}, "mismatch");
  expect_refused({.certificate_file = certificate, .key_file = key, .client_ca_file = text}, text);
  expect_refused({.certificate_file = certificate, .key_file = key, .require_client_certificate = true},
                 "which authorities");
  expect_refused({.certificate_file = certificate, .key_file = key, .ciphers = "NONSENSE"}, "NONSENSE");
}

class TlsSessionTest : public TlsTest {
 protected:
  void serve(const std::string& client_ca_pem = "", bool required = false) {
    TlsOptions options{.certificate_file = file("cert.pem", own_.certificate_pem),
                       .key_file = file("key.pem", own_.key_pem),
                       .require_client_certificate = required};
    if (!client_ca_pem.empty()) options.client_ca_file = file("ca.pem", client_ca_pem);
    auto loaded = TlsContext::load(options);
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message;
    server_ = std::make_unique<TlsSession>(*loaded);
  }
  // Carries bytes between both until neither has more to say; `step` bytes at a time towards the server.
  void exchange(TestTlsClient* client, size_t step) {
    for (bool busy = true; busy;) {
      client->advance();
      const std::string sent = client->take_output();
      for (size_t at = 0; at < sent.size(); at += step) server_->feed(sent.substr(at, step), &received_);
      const std::string answer = server_->take_output();
      client->feed(answer);
      busy = !sent.empty() || !answer.empty();
    }
  }

  std::unique_ptr<TlsSession> server_;
  std::string received_;
};

TEST_F(TlsSessionTest, CarriesBytesBothWaysHoweverTheyAreCut) {
  for (const size_t step : {size_t{1}, size_t{7}, size_t{100'000}}) {
    serve();
    received_.clear();
    TestTlsClient client;
    EXPECT_EQ(server_->state(), State::kHandshake);
    exchange(&client, step);
    ASSERT_EQ(server_->state(), State::kOpen) << server_->error();
    EXPECT_EQ(client.protocol(), "http/1.1");
    const std::string request(50'000, 'q');  // several records
    client.write(request);
    exchange(&client, step);
    EXPECT_EQ(received_, request);
    const std::string answer(70'000, 'a');
    server_->write(answer);
    exchange(&client, step);
    EXPECT_EQ(client.received(), answer);
    server_->close();
    server_->write("after the end");
    exchange(&client, step);
    EXPECT_TRUE(client.ended());
    EXPECT_EQ(client.received(), answer);
    client.close();
    exchange(&client, step);
    EXPECT_EQ(server_->state(), State::kPeerDone);
  }
}

TEST_F(TlsSessionTest, OldVersionsAreRefused) {
  serve();
  TestTlsClient client({}, TLS1_1_VERSION);
  exchange(&client, 1000);
  EXPECT_EQ(server_->state(), State::kFailed);
  EXPECT_FALSE(server_->is_plain_http());
  server_->write("nobody");
  EXPECT_EQ(server_->feed("x", &received_), State::kFailed);
}

TEST_F(TlsSessionTest, ClientCertificates) {
  serve(other_.certificate_pem, true);
  TestTlsClient trusted(other_);
  exchange(&trusted, 1000);
  EXPECT_EQ(server_->state(), State::kOpen) << server_->error();
  serve(other_.certificate_pem, true);
  TestTlsClient without;
  exchange(&without, 1000);
  EXPECT_EQ(server_->state(), State::kFailed);
  serve(other_.certificate_pem, true);
  TestTlsClient stranger(own_);
  exchange(&stranger, 1000);
  EXPECT_EQ(server_->state(), State::kFailed);
  serve(other_.certificate_pem, false);
  TestTlsClient optional;
  exchange(&optional, 1000);
  EXPECT_EQ(server_->state(), State::kOpen) << server_->error();
}

TEST_F(TlsSessionTest, DamagedInput) {
  serve();
  EXPECT_EQ(server_->feed("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &received_), State::kFailed);
  EXPECT_TRUE(server_->is_plain_http());
  for (const std::string& bytes : {std::string("\x16\x03\x01\xff\xff") + std::string(70'000, 'x'), std::string(5, '\0'),
                                   std::string("\x15\x03\x03\x00\x02\x02\x28", 7)}) {
    serve();
    EXPECT_EQ(server_->feed(bytes, &received_), State::kFailed);
    EXPECT_FALSE(server_->is_plain_http());
    EXPECT_NE(server_->error(), "");
  }
  EXPECT_EQ(received_, "");
}

}  // namespace
}  // namespace hadal
