// A TLS client in memory and certificates made on the spot, for tests.
#pragma once

#include <memory>
#include <string>

namespace hadal {

struct TestCertificate {  // self-signed
  std::string certificate_pem;
  std::string key_pem;
};
TestCertificate make_test_certificate(const std::string& host);

// Trusts everybody; offers "h2" and "http/1.1". `max_version`: as OpenSSL numbers them, 0: its newest.
class TestTlsClient {
 public:
  explicit TestTlsClient(const TestCertificate& own = {}, int max_version = 0);
  ~TestTlsClient();

  void write(const std::string& plain);  // once the handshake is done
  void feed(const std::string& bytes);
  void advance();  // handshake and reading
  std::string take_output();
  void close();

  const std::string& received() const { return received_; }
  bool ended() const { return ended_; }  // the server said so
  bool failed() const { return failed_; }
  std::string protocol() const;  // agreed on

 private:
  struct Impl;
  const std::unique_ptr<Impl> impl_;
  std::string unsent_;
  std::string received_;
  bool ended_ = false;
  bool failed_ = false;
};

}  // namespace hadal
