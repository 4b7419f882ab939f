// TLS for one connection, without I/O: bytes from the socket go in, plain text comes out, and the other way round. Only
// tls.cc knows OpenSSL.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace hadal {

// TLS 1.2 and later; nothing is asked for interactively.
struct TlsOptions {
  std::string certificate_file;  // PEM chain, the server's own first; "": no TLS
  std::string key_file;          // PEM, without a passphrase; "": in certificate_file
  std::string client_ca_file;    // PEM; "": clients show no certificate
  bool require_client_certificate = false;
  std::string ciphers;  // OpenSSL's list for TLS 1.2; "": the library's
};

// Certificate and key of a server. Immutable.
class TlsContext {
 public:
  // Errors: kInvalidArgument naming the flag's file and what is wrong with it (missing, not PEM, key of another
  // certificate, ...).
  static Expected<std::shared_ptr<const TlsContext>> load(const TlsOptions& options);
  ~TlsContext();

 private:
  friend class TlsSession;
  struct Impl;
  explicit TlsContext(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

// The server's side of one connection. Single-owner.
class TlsSession {
 public:
  explicit TlsSession(std::shared_ptr<const TlsContext> context);
  ~TlsSession();

  enum class State {
    kHandshake,
    kOpen,
    kPeerDone,  // the client said that it sends no more
    kFailed,    // see error(); take_output() may hold an alert for the client
  };

  // Takes bytes of the socket and appends what they say to `plain`.
  State feed(std::string_view bytes, std::string* plain);
  // Encrypts. Nothing happens before kOpen or after close().
  void write(std::string_view plain);
  // Says that no more will come.
  void close();
  // What the socket is to be given next.
  std::string take_output();

  State state() const { return state_; }
  const std::string& error() const { return error_; }
  // kFailed because the client spoke HTTP without TLS: an answer in plain text will be understood.
  bool is_plain_http() const { return is_plain_http_; }

 private:
  struct Impl;
  void fail();

  const std::unique_ptr<Impl> impl_;
  State state_ = State::kHandshake;
  std::string error_;
  bool is_plain_http_ = false;
};

}  // namespace hadal
